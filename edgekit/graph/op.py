"""What an operator is: one class an op, holding its shape rule, gradient rule, cost and reference result.

The fields of an op's dataclass are its attributes. They are the attribute words of the Program file, in order, and
the C struct ``ek_<name>_attrs`` that ``edgekit/program/cgen.py`` writes: an ``int`` (or ``IntEnum`` or ``bool``) is
one i32, a ``float`` one f32, a fixed-length tuple of ints that many i32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgekit.graph.value import Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node

Array = np.ndarray[Any, Any]


class ShapeError(ValueError):
    """The operands of an op do not fit together."""


@dataclass(frozen=True)
class Op:
    """Base of all operators.

    ``operands`` and ``results`` name the inputs and outputs in order; a name ending in ``?`` may be absent (``None``).
    """

    name: ClassVar[str]
    code: ClassVar[int]
    operands: ClassVar[tuple[str, ...]]
    results: ClassVar[tuple[str, ...]]
    #: indices of operands written in place (parameters, optimizer state); such a node is never dead
    mutates: ClassVar[tuple[int, ...]] = ()
    #: (result, operand) pairs that may share memory when the operand dies at the node
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ()

    def shared(self) -> tuple[tuple[int, int], ...]:
        """``inplace``, of an op with these attributes."""
        return self.inplace

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        """Types of all results (those that the node does not ask for included).

        Raises:
            ShapeError: the operands do not fit this op.
        """
        raise NotImplementedError

    def saves(self) -> tuple[int, ...]:
        """Indices of the optional results that ``gradient`` reads (a dropout mask, the places of a pool's maxima).

        Autodiff rebuilds the forward node with these results before it calls ``gradient``.
        """
        return ()

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        """Emit into ``build`` the gradients of the wanted operands, given the gradient ``dy`` of result 0.

        Returns one entry an operand, None where it is not wanted; what is not wanted is not computed. The entry may
        be ``dy`` itself. ``node`` is the forward node, its ``saves()`` results present.

        relu and relu6 need one bit an element: ``ApplyMask(dy, mask)``, or ``UnaryGrad(dy, y)`` where the forward node
        makes no mask. Of other functions, some need the result and some the argument (``Function.grad_uses_output``).

        Raises:
            NotImplementedError: the op has no gradient (the ``...Grad`` and update ops), or it carries a fused
                activation: differentiation comes before fusion.
        """
        raise NotImplementedError(f"{self.name} has no gradient")

    def flops(self, node: Node) -> int:
        """Floating-point operations of one run (a multiply-add is two).

        Products count exactly and alone: a bias, residual or activation beside one is left out.
        """
        return sum(v.type.size for v in node.outputs if v is not None)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        """All results by NumPy, in the operands' own precision: what every backend is judged by.

        BITS arrays are boolean arrays of the logical shape here. An op that mutates returns, after its results, the new contents
        of the operands that ``mutates`` names, in that order, absent ones left out; the operands themselves stay as they are.
        """
        raise NotImplementedError
