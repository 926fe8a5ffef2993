"""All operators, by name and by Program code."""

from __future__ import annotations

from edgekit.graph.op import Op
from edgekit.graph.ops import conv, elementwise, linear, loss, pool, quantized, shape, update

_FAMILIES = (linear, conv, elementwise, shape, pool, loss, update, quantized)

OPS: dict[int, type[Op]] = {
    cls.code: cls
    for family in _FAMILIES
    for cls in vars(family).values()
    if isinstance(cls, type) and issubclass(cls, Op) and cls is not Op
}
