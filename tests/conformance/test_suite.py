"""The suite itself: it passes what is right to rounding, and notices what is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from edgekit.graph.graph import Node
from edgekit.graph.op import Array
from edgekit.graph.ops import OPS
from tests.conformance.case import Case, Operand
from tests.conformance.cases import FAMILIES, Family
from tests.conformance.numpy_runner import NumpyRunner
from tests.conformance.verdict import faults

families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


@families
def test_accepts_float32_references(family: Family):
    assert faults(NumpyRunner(), family.table(), threads=(1,)) == []


@families
def test_accepts_drawn_cases(family: Family):
    @settings(max_examples=40)
    @given(family.drawn)
    def accept(case: Case) -> None:
        assert faults(NumpyRunner(), [case], threads=(1,)) == []

    accept()


def test_every_op_has_cases():
    tested = {type(case.op) for family in FAMILIES for case in family.table()}
    assert {cls.name for cls in set(OPS.values()) - tested} == {"reshape"}  # a view: no kernel


@families
def test_notices_one_wrong_element(family: Family):
    """The last element of the last result off by one part in a thousand, or by one where it is whole."""

    def tamper(node: Node, results: tuple[Array, ...]) -> tuple[Array, ...]:
        changed = [v for i in node.op.mutates if (v := node.inputs[i]) is not None]
        last = max(i for i, v in enumerate((*node.outputs, *changed)) if v is not None)
        wrong = results[last].copy()
        flat = wrong.reshape(-1)
        if wrong.dtype == np.float32:
            biggest = int(np.argmax(np.abs(flat)))
            flat[biggest] += np.copysign(np.float32(0.05), flat[biggest]) + flat[biggest] * np.float32(0.002)
        else:
            flat[-1] ^= 1
        return (*results[:last], wrong, *results[last + 1 :])

    table = family.table()
    missed = [str(c) for c in table if not faults(NumpyRunner(tamper), [c], threads=(1,), runs=1)]
    assert missed == []


def test_notices_stray_writes_and_changing_runs():
    case = next(c for c in FAMILIES[0].table() if c.operands[0] is not None)
    honest = NumpyRunner()

    @dataclasses.dataclass(frozen=True)
    class Stray(NumpyRunner):
        def run(self, bundle, threads, runs):
            return [(arena[:-1] + b"\0", state) for arena, state in honest.run(bundle, threads, runs)]

    @dataclasses.dataclass(frozen=True)
    class Changing(NumpyRunner):
        def run(self, bundle, threads, runs):
            images = honest.run(bundle, threads, runs)
            (at,) = (bundle.offsets[v] for v in bundle.nodes[0].writes)
            flipped = bytearray(images[1][0])
            flipped[at] ^= 1
            return [images[0], (bytes(flipped), images[1][1])]

    assert "outside of results" in faults(Stray(), [case])[0]
    assert "other bits" in faults(Changing(), [case])[0]


def test_says_what_is_wrong():
    case = FAMILIES[3].table()[1]
    operand = case.operands[0]
    assert isinstance(operand, Operand)

    def tamper(_: Node, results: tuple[Array, ...]) -> tuple[Array, ...]:
        wrong = results[0].copy()
        wrong[2, 1] += 1
        return (wrong,)

    (line,) = faults(NumpyRunner(tamper), [case], threads=(1,))
    assert line.startswith(
        "numpy, 1 thread: y of Permute(perm=(1, 0, -1, -1, -1, -1)) of (f32[33, 17] arena) making (y): 1 of 561"
    )
    assert "first at (2, 1)" in line
