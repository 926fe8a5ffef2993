"""A network pretrained in float32, fine-tuned in int8 on a shifted data set, is as good as in float32; without scaling, at the
same learning rate, it learns nothing."""

from __future__ import annotations

import pytest

from benchmarks.int8 import Setting, compare
from examples.digits.network import DigitNet, pretrain
from examples.digits.world import load


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
