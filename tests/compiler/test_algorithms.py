"""Which algorithm a dense 3×3 convolution gets, and that boards compute the same by either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgekit.backends.cortex_m.capability import CORTEX_M
from edgekit.backends.cpu.capability import CPU

import edgekit
from edgekit.compiler import compile_program
from edgekit.costs import KINDS, Costs, Layer
from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.ops.conv import Algorithm, Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from edgekit.program import Program
from tests.boards.test_costs import table

PRODUCT, WINOGRAD = Algorithm.PRODUCT, Algorithm.WINOGRAD
SAME = (1, 1, 1, 1)


def layer(size: int, inputs: int, outputs: int, stride: int = 1) -> Entry:
    """All that there is of a layer: forward with constants, forward with a state, and the gradients."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, inputs, outputs)).astype(np.float32)
    build = Builder()
    x = build.input("x", (1, size, size, inputs))
    frozen = build(Conv2d((stride, stride), SAME), x, build.constant("frozen", w))
    state = build.state("w", w + 1)
    trained = build(Conv2d((stride, stride), SAME), x, state)
    dx = build(Conv2dInputGrad((size, size), (stride, stride), SAME), frozen, state)
    dw = build(Conv2dWeightGrad((3, 3), (stride, stride), SAME), x, trained)
    build.graph.outputs = [frozen, trained, dx, dw]
    return Entry(build.graph, (Port(Role.INPUT, x), Port(Role.OUTPUT, frozen)))


def compiled(entry: Entry, costs: Costs | None) -> Program:
    return compile_program({"predict": entry}, capability=CPU, costs=costs)


def chosen(entry: Entry, costs: Costs | None) -> list[Algorithm]:
    """Of frozen, forward, input_grad, weight_grad: the order is the compiler's, so by what they are."""
    found = {}
    program = compiled(entry, costs)
    for record in program.entries["predict"].ops:
        if isinstance(record.op, (Conv2d, Conv2dInputGrad, Conv2dWeightGrad)):
            name = record.op.name
            if isinstance(record.op, Conv2d):
                assert record.inputs[1] is not None
                name = program.tensors[record.inputs[1]].name
            found[name] = record.op.algorithm
    return [found[name] for name in ("frozen", "w", "conv2d_input_grad", "conv2d_weight_grad")]


@pytest.mark.parametrize(("size", "expected"), [(9, PRODUCT), (10, WINOGRAD)])
def test_without_a_table_the_number_of_results_decides(size: int, expected: Algorithm) -> None:
    assert chosen(layer(size, 32, 32), None) == [expected] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_decides_for_each_kind(kind: str) -> None:
    fast = {k: (1.0, 2.0) if k == kind else (2.0, 1.0) for k in KINDS}
    costs = table(Layer(results=100, inputs=32, outputs=32, **fast))
    assert chosen(layer(10, 32, 32), costs) == [WINOGRAD if k == kind else PRODUCT for k in KINDS]


def test_what_has_one_algorithm_stays_as_it_is() -> None:
    costs = table(Layer(results=100, inputs=32, outputs=32, **dict.fromkeys(KINDS, (1.0, 2.0))))
    assert chosen(layer(10, 32, 32, stride=2), costs) == [Algorithm.AUTO] * 4
    assert chosen(layer(10, 24, 32), costs) == [Algorithm.AUTO, Algorithm.AUTO, WINOGRAD, Algorithm.AUTO]
    assert chosen(layer(10, 3, 32), costs)[2] is PRODUCT, "most of a vector would be empty"


def test_a_microcontroller_keeps_its_own() -> None:
    program = compile_program({"predict": layer(10, 32, 32)}, capability=CORTEX_M)
    assert {getattr(o.op, "algorithm", Algorithm.AUTO) for o in program.ops} == {Algorithm.AUTO}


@pytest.mark.parametrize("size", [3, 10])
def test_a_board_computes_the_same_by_either(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(1).normal(size=(1, size, size, 32)).astype(np.float32)
    found = []
    for speeds in ((2.0, 1.0), (1.0, 2.0)):
        program = compiled(layer(size, 32, 32), table(Layer(results=9, inputs=32, outputs=32, **dict.fromkeys(KINDS, speeds))))
        with edgekit.connect("local", threads=1) as device:
            found.append(device.predict(program, x))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-3)
    assert not np.array_equal(*found), "the algorithms round differently: the program's was not taken"
