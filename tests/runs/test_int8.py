"""A network pretrained in float32, fine-tuned in int8 on a shifted data set, is as good as in float32; without scaling, at the
same learning rate, it learns nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import edgekit
from benchmarks.int8 import CALIBRATION, SETTINGS, compare, first, train
from examples.digits.network import DigitNet, pretrain
from examples.digits.world import World, load
from tests.support.microcontroller import virtual_m7

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> DigitNet:
    """Pretrained in the clean world."""
    return pretrain(load()[0].train, 8, lambda: None)


@pytest.fixture(scope="module")
def shifted() -> World:
    return load()[1]


def test_int8_is_as_good_as_float32(model: DigitNet, shifted: World) -> None:
    plain, whole, unscaled = compare(model, shifted, seeds=1, to=SETTINGS["local"], unscaled_lrs=(1.0,))
    assert plain.mean > plain.before + 0.5
    assert whole.mean > plain.mean - 0.03, "within what one seed differs from another"
    assert unscaled.mean < unscaled.before + 0.2


def test_a_microcontroller_learns_it_too(
    model: DigitNet, shifted: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of what the benchmark does there."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    there = replace(SETTINGS["virtual-m7"], epochs=3)
    scaled, unscaled = (edgekit.Int8(shifted.train.inputs[:CALIBRATION], scaled_updates=s) for s in (True, False))
    with virtual_m7():
        before, after = train(model, shifted, scaled, there.lr, 0, there)
        stood, still = train(model, first(shifted, 100), unscaled, there.lr, 0, there)
    _, here = train(model, shifted, scaled, there.lr, 0, replace(there, device="local"))
    assert after > before + 0.6
    assert abs(after - here) < 0.05, "the same but for the order of float32 sums"
    assert still < stood + 0.2
