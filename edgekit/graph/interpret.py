"""Runs a graph by the ops' reference results: slow, in any precision, and what the rest is judged by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.graph.graph import Graph
from edgekit.graph.op import Array
from edgekit.graph.value import DType, Value


def interpret(
    graph: Graph,
    inputs: Mapping[Value, Array],
    state: Mapping[Value, Array] | None = None,
    dtype: type[np.floating] = np.float64,
) -> dict[Value, Array]:
    """Every value that the graph makes or changes.

    ``state`` replaces the graph's first contents and stays as it is; the changed arrays are in the result. All F32
    arrays are computed in ``dtype``.

    Raises:
        KeyError: an input is missing.
    """
    found: dict[Value, Array] = {**graph.constants, **graph.state, **(state or {})}
    found.update({v: inputs[v] for v in graph.inputs})
    found = {v: np.asarray(a, dtype) if v.dtype is DType.F32 else a for v, a in found.items()}
    for node in graph.nodes:
        results = node.op.reference(*(None if v is None else found[v] for v in node.inputs))
        changed = [v for i in node.op.mutates if (v := node.inputs[i]) is not None]
        found.update({v: a for v, a in zip((*node.outputs, *changed), results, strict=True) if v is not None})
    return found
