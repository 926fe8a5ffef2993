"""A model's layers, blocks and head: what the words of an update scheme count.

A *layer* is a convolution or linear layer with the BatchNorm after it, in order of execution.
A *block* is an outermost module of a class that occurs at least twice and holds at least two layers (``InvertedResidual``,
``BasicBlock``); plain containers do not count. In a network without such modules every layer but the head is a block.
The *head* is every layer whose result reaches an output through no further layer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgekit.graph.graph import Node
from edgekit.graph.model import Model
from edgekit.graph.ops.conv import Conv2d
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.norm import BatchNorm
from edgekit.graph.value import Value

_CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer with its norm: the names of its parameters, None where it has none."""

    module: str
    weight: str | None
    bias: str | None
    norm_scale: str | None = None
    norm_shift: str | None = None
    convolution: bool = False
    kernel: tuple[int, ...] = ()
    groups: int = 1

    @property
    def biases(self) -> tuple[str, ...]:
        """What it adds: its own bias and its norm's."""
        return tuple(name for name in (self.bias, self.norm_shift) if name is not None)

    @property
    def trained(self) -> tuple[str, ...]:
        """Weight and biases: what the words update. The norm's scale is not among them."""
        return (*([] if self.weight is None else [self.weight]), *self.biases)


@dataclass(frozen=True)
class Block:
    """A part of the network that ``last:N`` counts, and the names of the parameters in it."""

    path: str
    parameters: tuple[str, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Structure:
    """A model's layers in order of execution, its blocks, its head, and its BatchNorms' scales."""

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    head: tuple[Layer, ...]
    norm_scales: frozenset[str]


def structure_of(model: Model) -> Structure:
    """Find layers, blocks and head."""
    names = {p.value: p.name for p in model.parameters.values()}
    consumers = model.graph.consumers()
    made = {n: _layer(n, consumers, names) for n in model.graph.nodes if isinstance(n.op, (Conv2d, Linear))}
    layers = tuple(layer for layer in made.values() if layer.trained)
    final = _final(model)
    head = tuple(layer for node, layer in made.items() if node in final and layer.trained)
    scales = frozenset(names[v] for n in model.graph.nodes if isinstance(n.op, BatchNorm) and (v := n.inputs[3]) in names)
    return Structure(layers, _blocks(model, layers, head), head, scales)


def _layer(node: Node, consumers: dict[Value, list[Node]], names: dict[Value, str]) -> Layer:
    """The layer of a product: its parameters and, past permutations and reshapes, its norm's."""
    _, w, b, _ = node.inputs
    norm = _norm_after(node, consumers)
    scale, shift = norm.inputs[3:5] if norm is not None else (None, None)
    weight, bias, norm_scale, norm_shift = (names.get(v) if v is not None else None for v in (w, b, scale, shift))
    convolution = isinstance(node.op, Conv2d)
    assert w is not None
    kernel = w.shape[:2] if convolution else ()
    groups = node.op.groups if isinstance(node.op, Conv2d) else 1
    return Layer(node.origin.module, weight, bias, norm_scale, norm_shift, convolution, kernel, groups)


def _norm_after(node: Node, consumers: dict[Value, list[Node]]) -> Node | None:
    readers = consumers.get(node.outputs[0], []) if node.outputs[0] else []
    while len(readers) == 1 and readers[0].op.name in ("permute", "reshape"):
        made = readers[0].outputs[0]
        readers = consumers.get(made, []) if made is not None else []
    found = readers[0] if len(readers) == 1 else None
    return found if found is not None and isinstance(found.op, BatchNorm) else None


def _final(model: Model) -> set[Node]:
    """The products that no further product lies behind, on the way to the outputs (to the loss where none leads there)."""
    producers = model.graph.producers()
    found: set[Node] = set()
    pending: list[Value] = list(model.outputs) or [model.loss]
    seen: set[Value] = set()
    while pending:
        v = pending.pop()
        node = producers.get(v)
        if v in seen or node is None:
            continue
        seen.add(v)
        if isinstance(node.op, (Conv2d, Linear)):
            found.add(node)
        else:
            pending += node.reads
    return found


def _blocks(model: Model, layers: tuple[Layer, ...], head: tuple[Layer, ...]) -> tuple[Block, ...]:
    held = {m.path: tuple(layer for layer in layers if _inside(layer.module, m.path)) for m in model.modules}
    count = Counter(m.class_name for m in model.modules if len(held[m.path]) >= 2)
    repeated = {name for name in count if count[name] >= 2} - _CONTAINERS
    composite = [m.path for m in model.modules if len(held[m.path]) >= 2 and m.class_name in repeated]
    outermost = [p for p in composite if not any(_inside(p, q) for q in composite if q != p)]
    if outermost:
        names = model.parameters
        return tuple(Block(p, tuple(n for n in names if _inside(n, p)), held[p]) for p in outermost)
    return tuple(Block(layer.module, layer.trained, (layer,)) for layer in layers if layer not in head)


def _inside(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")
