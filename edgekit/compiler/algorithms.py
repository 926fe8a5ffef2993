"""Every dense 3×3 convolution, forward and gradients, gets the algorithm that is the faster one for its shape on the board.

The shape that counts is the whole batch's, so the choice, and with it the rounding, is the same for groups of its samples.
"""

from __future__ import annotations

from dataclasses import replace

from edgekit.compiler.rewrite import roots, with_nodes
from edgekit.costs import Costs, Kind
from edgekit.graph.entry import Entry
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import WINOGRAD_RESULTS, Algorithm, Conv2d, Conv2dInputGrad, Conv2dWeightGrad, winograd_fits
from edgekit.graph.value import Value

_LEAST = 16  #: channels: fewer leave most of a vector empty


def choose_algorithms(entry: Entry, costs: Costs | None) -> Entry:
    """The entry with the algorithm of every convolution that has a choice; without ``costs`` by its number of results."""
    graph, root = entry.graph, roots(entry.graph)
    return replace(entry, graph=with_nodes(graph, [_chosen(node, graph, root, costs) for node in graph.nodes]))


def _chosen(node: Node, graph: Graph, root: dict[Value, Value], costs: Costs | None) -> Node:
    op = node.op
    if not isinstance(op, (Conv2d, Conv2dInputGrad, Conv2dWeightGrad)):
        return node
    first, second, result = node.inputs[0], node.inputs[1], node.outputs[0]
    assert first is not None and second is not None and result is not None
    kind: Kind
    match op:
        case Conv2d():
            kind = "frozen" if root.get(second, second) in graph.constants else "forward"
            kernel, image, inputs, outputs = second.shape[:2], result, first.shape[3], result.shape[3]
            fits = winograd_fits((kernel[0], kernel[1]), op.stride, op.dilation, op.groups, inputs)
        case Conv2dInputGrad():
            kind = "input_grad"
            kernel, image, inputs, outputs = second.shape[:2], result, result.shape[3], first.shape[3]
            fits = winograd_fits((kernel[0], kernel[1]), op.stride, op.dilation, op.groups, outputs)
        case Conv2dWeightGrad():
            kind = "weight_grad"
            image, inputs, outputs = second, first.shape[3], second.shape[3]
            fits = winograd_fits(op.kernel, op.stride, op.dilation, op.groups, inputs, outputs)
    if not fits:
        return node
    return replace(node, op=replace(op, algorithm=_faster(kind, image, inputs, outputs, costs)))


def _faster(kind: Kind, image: Value, inputs: int, outputs: int, costs: Costs | None) -> Algorithm:
    results = image.type.size // image.shape[3]
    if min(inputs, outputs) < _LEAST:
        return Algorithm.PRODUCT
    if costs is None:
        return Algorithm.WINOGRAD if results >= WINOGRAD_RESULTS else Algorithm.PRODUCT
    return costs.faster(kind, results, inputs, outputs)
