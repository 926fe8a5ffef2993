"""A network pretrained in float32, fine-tuned in int8 on a shifted data set, is as good as in float32; without scaling, at the
same learning rate, it learns nothing."""

from __future__ import annotations

import pytest

from benchmarks.int8 import Setting, compare, first
from edgekit.virtual import M7, Settings, delete, start
from examples.digits.network import DigitNet, pretrain
from examples.digits.world import load
from tests.virtual.conftest import need


@pytest.fixture(scope="module")
def model() -> DigitNet:
    """Pretrained in the clean world."""
    return pretrain(load()[0].train, 8, lambda: None)


@pytest.mark.slow
def test_int8_is_as_good_as_float32(model: DigitNet) -> None:
    _, shifted = load()
    plain, whole, unscaled = compare(model, shifted, seeds=1, to=Setting(), unscaled_lrs=(1.0,))
    assert plain.mean > plain.before + 0.5
    assert whole.mean > plain.mean - 0.03, "within what one seed differs from another"
    assert unscaled.mean < unscaled.before + 0.2


@pytest.mark.slow
def test_a_microcontroller_trains_in_int8(
    model: DigitNet, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained and measured on the virtual Cortex-M7, without momentum; float32 here."""
    need("qemu-system-arm")
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("config")))
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    _, shifted = load()
    start(Settings.from_profile(M7, machine=M7))
    try:
        to = Setting(M7, epochs=2, momentum=0.0, lr=0.03)
        plain, whole, unscaled = compare(model, first(shifted, 200), seeds=1, to=to, unscaled_lrs=(1.0,))
    finally:
        delete(M7)
    assert plain.mean > plain.before + 0.3
    assert whole.mean > plain.mean - 0.05, "200 images"
    assert unscaled.mean < unscaled.before + 0.2
