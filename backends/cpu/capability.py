"""What the CPU backend can do: every op; the cheap activations fused into products, every one into a per-channel affine."""

from __future__ import annotations

from edgekit.backends import Capability, Epilogue

from edgekit.graph.ops import OPS
from edgekit.graph.ops.conv import Conv2d, Conv2dInputGrad
from edgekit.graph.ops.elementwise import Affine
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import Linear, LinearInputGrad
from edgekit.graph.value import DType

_MASKS = frozenset({Function.RELU, Function.RELU6})
_CHEAP = Epilogue(_MASKS | {Function.IDENTITY, Function.HARDSWISH, Function.HARDSIGMOID}, _MASKS)

CPU = Capability(
    name="cpu",
    backend=1,
    architectures=("x86_64", "aarch64"),
    ops=frozenset(OPS),
    epilogues={
        Linear.code: _CHEAP,
        LinearInputGrad.code: _CHEAP,
        Conv2d.code: _CHEAP,
        Conv2dInputGrad.code: _CHEAP,
        Affine.code: Epilogue(frozenset(Function), _MASKS),
    },
    moved=frozenset({DType.F32, DType.I32, DType.I8}),
    alignment=64,
    caches=True,
)
