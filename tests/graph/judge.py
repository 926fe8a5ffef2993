"""Holds an op's reference result and gradient rule against PyTorch, in float64.

The gradient rule's graph is run by the references themselves, so a test of one rule also tests the ops it is made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Array, Op
from edgekit.graph.ops.function import Function
from edgekit.graph.value import DType, Value

TorchFunction = Callable[..., torch.Tensor]
TORCH: dict[Function, TorchFunction] = {
    Function.IDENTITY: torch.clone,
    Function.RELU: F.relu,
    Function.RELU6: F.relu6,
    Function.HARDSWISH: F.hardswish,
    Function.HARDSIGMOID: lambda x: F.relu6(x + 3) / 6,  # F.hardsigmoid's gradient has a float32's 1/6 even in float64
    Function.SIGMOID: torch.sigmoid,
    Function.SILU: F.silu,
    Function.TANH: torch.tanh,
    Function.GELU: F.gelu,
    Function.EXP: torch.exp,
    Function.LOG: torch.log,
    Function.SQRT: torch.sqrt,
    Function.RSQRT: torch.rsqrt,
    Function.NEG: torch.neg,
    Function.ABS: torch.abs,
    Function.RECIPROCAL: torch.reciprocal,
    Function.SQUARE: torch.square,
}
_DTYPES = {np.dtype(np.int32): DType.I32, np.dtype(np.uint8): DType.U8, np.dtype(np.bool_): DType.BITS}


def dtype_of(array: Array) -> DType:
    return _DTYPES.get(array.dtype, DType.F32)


def node_of(build: Builder, op: Op, operands: Sequence[Array | None]) -> tuple[Node, dict[Value, Array]]:
    """A node that applies ``op`` to fresh inputs and makes result 0 and what ``op.saves()`` asks for."""
    inputs = [None if a is None else build.input(f"in{i}", a.shape, dtype_of(a)) for i, a in enumerate(operands)]
    build.emit(op, *inputs, results=(0, *op.saves()))
    return build.graph.nodes[-1], {v: a for v, a in zip(inputs, operands, strict=True) if v is not None and a is not None}


def run(graph: Graph, known: dict[Value, Array]) -> dict[Value, Array]:
    """Every value of the graph, by the references, in float64."""
    values = dict(known)
    values.update({v: np.asarray(a, np.float64) for v, a in graph.constants.items()})
    graph.validate()
    for node in graph.nodes:
        results = node.op.reference(*(None if v is None else values[v] for v in node.inputs))
        for v, a in zip(node.outputs, results, strict=True):
            if v is not None:
                assert isinstance(a, np.ndarray), f"{node} made a {type(a)}"
                assert a.shape == v.shape, f"{node} made {a.shape}"
                assert dtype_of(a) is v.dtype, f"{node} made {a.dtype}"
                values[v] = a
    return values


def assert_all_needed(nodes: Sequence[Node], wanted: Sequence[Value | None]) -> None:
    """Every node contributes to something that was wanted."""
    needed = {v for v in wanted if v is not None}
    for node in reversed(nodes):
        assert needed.intersection(node.writes), f"{node} computes what nobody wants"
        needed.update(node.reads)


def check(op: Op, operands: Sequence[Array | None], function: TorchFunction, *, seed: int = 0, tolerance: float = 1e-11) -> None:
    """Compare result 0 with ``function`` of the same operands, and the gradients for every choice of wanted operands.

    float64 operands are differentiated; others (targets, masks) and absent ones (passed as None) are not.
    """
    tensors = [None if a is None else torch.from_numpy(a.copy()).requires_grad_(a.dtype == np.float64) for a in operands]
    expected = function(*tensors)
    y = op.reference(*operands)[0]
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=f"result of {op}")

    smooth = [i for i, t in enumerate(tensors) if t is not None and t.requires_grad]
    dy = normal(y.shape, seed + 9)
    judged = torch.autograd.grad(expected, [tensors[i] for i in smooth], torch.from_numpy(dy), allow_unused=True)
    truth = {i: np.zeros(operands[i].shape) if g is None else g.numpy() for i, g in zip(smooth, judged, strict=True)}
    for chosen in itertools.chain.from_iterable(itertools.combinations(smooth, n) for n in range(len(smooth) + 1)):
        build = Builder()
        node, known = node_of(build, op, operands)
        start = build.input("dy", dy.shape)
        before = len(build.graph.nodes)
        grads = op.gradient(build, node, start, [i in chosen for i in range(len(operands))])
        assert [i for i, g in enumerate(grads) if g is not None] == list(chosen), f"{op} gave other gradients than wanted"
        assert_all_needed(build.graph.nodes[before:], grads)
        values = run(build.graph, {**known, start: dy})
        for i in chosen:
            np.testing.assert_allclose(
                values[grads[i]],
                truth[i],
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"gradient of operand {op.operands[i]} of {op}",
            )


def normal(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Standard normal float64 numbers."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


def nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)
