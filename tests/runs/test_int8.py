"""A network pretrained in float32, fine-tuned in int8 on a shifted data set, is as good as in float32; without scaling, at the
same learning rate, it learns nothing."""

from __future__ import annotations

import pytest

from benchmarks.int8 import compare
from examples.digits.network import pretrain
from examples.digits.world import load


@pytest.mark.slow
def test_int8_is_as_good_as_float32() -> None:
    clean, shifted = load()
    model = pretrain(clean.train, 8, lambda: None)
    plain, whole, unscaled = compare(model, shifted, seeds=1, epochs=6, unscaled_lrs=(1.0,))
    assert plain.mean > plain.before + 0.5
    assert whole.mean > plain.mean - 0.03, "within what one seed differs from another"
    assert unscaled.mean < unscaled.before + 0.2
