"""A network pretrained in float32, fine-tuned in int8 on a shifted data set: as good as in float32, and not without scaling."""

from __future__ import annotations

import pytest

from benchmarks.int8 import compare
from examples.digits.network import pretrain
from examples.digits.world import load


@pytest.mark.slow
def test_int8_is_as_good_as_float32() -> None:
    clean, shifted = load()
    plain, whole, unscaled = compare(pretrain(clean.train, 8, lambda: None), shifted, seeds=1, epochs=6)
    assert plain.mean > plain.before + 0.5
    assert whole.mean > plain.mean - 0.03, "within what one seed differs from another"
    assert unscaled.mean < whole.mean - 0.05
