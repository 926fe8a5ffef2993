"""Backends: what a Program's ops run on. A backend is one folder here, with its kernels and its capability record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.graph.graph import Node
from edgekit.graph.ops.elementwise import Expand
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.shape import Concat, Permute, Slice, Unslice
from edgekit.graph.value import DType

_MOVES = frozenset({Permute.code, Slice.code, Unslice.code, Concat.code, Expand.code})


@dataclass(frozen=True)
class Epilogue:
    """What an op computes after its own result without another pass through memory."""

    acts: frozenset[Function]  #: functions that ``act`` may be, IDENTITY included
    masks: frozenset[Function] = frozenset()  #: of these, the ones whose derivative it writes or reads as bits


@dataclass(frozen=True)
class Capability:
    """What the compiler knows of a backend."""

    name: str
    backend: int  #: the Program file's number
    architectures: tuple[str, ...]  #: as in board profiles
    ops: frozenset[int]  #: opcodes that it has kernels for
    epilogues: Mapping[int, Epilogue] = field(hash=False)  #: by opcode; an op that is not here has no fused activation
    moved: frozenset[DType]  #: element types that ops without arithmetic (permute, slice, …) move
    alignment: int  #: bytes that every array starts on a multiple of
    caches: bool = False  #: whether its boards have a disk for what a frozen prefix makes
    small: bool = False  #: memory is scarcer than time: int8 networks run in bands (compiler/bands.py) where that lowers the peak

    def supports(self, node: Node) -> bool:
        """Whether there is a kernel for exactly this node: its op, activation, and present operands and results."""
        if node.op.code not in self.ops:
            return False
        if node.op.code in _MOVES:
            return all(v.dtype in self.moved for v in node.reads)
        return self._supports_epilogue(node)

    def _supports_epilogue(self, node: Node) -> bool:
        act = getattr(node.op, "act", Function.IDENTITY)
        epilogue = self.epilogues.get(node.op.code)
        if epilogue is None:
            return act is Function.IDENTITY
        masked = any(v.dtype is DType.BITS for v in (*node.reads, *node.writes))
        return act in (epilogue.masks if masked else epilogue.acts)
