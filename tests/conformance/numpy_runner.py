"""The references themselves as a backend, in float32: what the suite must accept, and with faults put in, must not."""

# ruff: noqa: ARG001, ARG002 (it plays a part that others wrote)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit.graph.graph import Node
from edgekit.graph.op import Array
from edgekit.graph.value import DType, Value
from edgekit.program.arrays import decode, encode
from tests.conformance.case import Bundle, Case
from tests.conformance.runner import Image

_TYPES = {DType.F32: np.float32, DType.I32: np.int32, DType.U8: np.uint8, DType.I8: np.int8, DType.BITS: np.bool_}


def faithful(node: Node, results: tuple[Array, ...]) -> tuple[Array, ...]:
    return results


@dataclass(frozen=True)
class NumpyRunner:
    """``tamper`` changes what a node makes."""

    tamper: Callable[[Node, tuple[Array, ...]], tuple[Array, ...]] = faithful
    name: str = "numpy"

    def usable(self) -> bool:
        return True

    def supports(self, case: Case) -> bool:
        return True

    def run(self, bundle: Bundle, threads: int, runs: int) -> list[Image]:
        return [self._run(bundle) for _ in range(runs)]

    def _run(self, bundle: Bundle) -> Image:
        arena, state = bytearray(bundle.arena), bytearray(bundle.state)

        def where(v: Value) -> tuple[bytearray, int]:
            return (state, bundle.states[v]) if v in bundle.states else (arena, bundle.offsets[v])

        def read(v: Value) -> Array:
            if v in bundle.graph.constants:
                return decode(encode(bundle.graph.constants[v], v.type), v.type)
            region, at = where(v)
            return decode(bytes(region[at : at + v.nbytes]), v.type)

        def write(v: Value, contents: Array) -> None:
            assert contents.dtype == _TYPES[v.dtype], f"{v!r} came out as {contents.dtype}"
            region, at = where(v)
            region[at : at + v.nbytes] = encode(contents, v.type)

        for node in bundle.nodes:
            operands = [None if v is None else read(v) for v in node.inputs]
            results = self.tamper(node, node.op.reference(*operands))
            changed = [v for i in node.op.mutates if (v := node.inputs[i]) is not None]
            for v, contents in zip((*node.outputs, *changed), results, strict=True):
                if v is not None:
                    write(v, contents)
        return bytes(arena), bytes(state)
