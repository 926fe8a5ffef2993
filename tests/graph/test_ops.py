"""Every op keeps the contract of ``Op``."""

from __future__ import annotations

import pytest

from edgekit.graph.op import Op
from edgekit.graph.ops import OPS
from edgekit.graph.ops.norm import BatchNorm

ALL = [*OPS.values(), BatchNorm]
BACKWARD = {c for c in ALL if c.name.endswith("_grad")}
UPDATES = {c for c in ALL if c.mutates or c.name in ("sum_squares", "clip_coefficient")}
UNDIFFERENTIATED = BACKWARD | UPDATES | {BatchNorm} | {c for c in ALL if c.name in ("apply_mask", "argmax_match")}


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.name)
def test_has_what_an_op_has(cls):
    assert cls.reference is not Op.reference
    assert cls.infer is not Op.infer
    assert (cls.gradient is Op.gradient) == (cls in UNDIFFERENTIATED)
    saved = cls().saves()
    assert all(cls.results[i].endswith("?") for i in saved)
    assert all(0 <= r < len(cls.results) and 0 <= o < len(cls.operands) for r, o in cls.inplace)
    assert all(0 <= o < len(cls.operands) for o in cls.mutates)


def test_codes_and_names_are_unique():
    assert len({c.code for c in ALL}) == len({c.name for c in ALL}) == len(ALL)
