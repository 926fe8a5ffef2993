"""Frozen BatchNorm folded into what comes before it, and the arrays that the board trains.

In evaluation mode y = s (x - mean) + beta with s = gamma / sqrt(var + eps). A convolution before it is stored as W' = s W and
b' = s (b - mean) + beta. SGD on these stored arrays follows PyTorch on the user's own to rounding when the gradient is
multiplied by a factor and weight decay pulls to an offset (``docs/architecture.md``, "Folded BatchNorm"):

    trained            factor     offset           factor for gradient norms
    W                  s²         0                |s|
    beta alone         1          s (b - mean)     1
    b alone            s²         beta - s mean    |s|
    b and beta         s² + 1     -s mean          sqrt(s² + 1)

Only the last case loses something: the board keeps the sum of b and beta's contributions, which is all that the network's
results depend on, and ``write_back`` splits it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgekit.errors import UnsupportedError
from edgekit.graph.graph import Graph, Node
from edgekit.graph.model import Binding, Fold, Layout, Model, Parameter, Trainable
from edgekit.graph.op import Array
from edgekit.graph.ops.conv import Conv2d
from edgekit.graph.ops.elementwise import Affine
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.norm import BatchNorm
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import Type, Value

#: a channel's s below this share of the largest cannot be divided out again without losing W's digits
_SAFE = 1e-6


def fold(model: Model, fractions: Mapping[str, float]) -> tuple[Model, list[Trainable]]:
    """The model with no BatchNorm left and its trained arrays in ``graph.state``, and how each is trained.

    ``fractions`` names the trained parameters: 1.0 whole, less for that share (rounded up) of a weight's leading input channels.

    Raises:
        UnsupportedError: a BatchNorm's statistics are computed by the model.
    """
    folder = _Folder(model, fractions)
    for node in model.graph.nodes:
        folder.add(node)
    return folder.result(), folder.trainables


def channels_of(parameter: Parameter, fraction: float, groups: int = 1) -> int | None:
    """How many entries of ``in_axis`` are trained; None for all. Of a depthwise weight whole groups are."""
    if parameter.in_axis is None:
        return None
    size = parameter.value.shape[parameter.in_axis]
    step = size // groups if groups > 1 and parameter.in_axis == len(parameter.value.shape) - 1 else 1
    count = math.ceil(fraction * (size // step) - 1e-9) * step
    return count if count < size else None


@dataclass(frozen=True, eq=False)
class _Norm:
    """One BatchNorm's vectors in double precision; s and shift are those that fold."""

    node: Node
    s: Array
    mean: Array
    shift: Array
    separate: bool  #: scale and shift stay behind as an Affine; only (x - mean) / sqrt(var + eps) folds
    fold: Fold | None  #: None where the model has no name for one of the tensors


@dataclass
class _Folder:
    """Builds the folded graph node by node."""

    model: Model
    fractions: Mapping[str, float]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[Value, Array] = field(default_factory=dict)
    state: dict[Value, Array] = field(default_factory=dict)
    trainables: list[Trainable] = field(default_factory=list)
    same: dict[Value, Value] = field(default_factory=dict)  #: old values that became others

    def __post_init__(self) -> None:
        graph = self.model.graph
        self._uses = {v: len(nodes) for v, nodes in graph.consumers().items()}
        for v in graph.outputs:
            self._uses[v] = self._uses.get(v, 0) + 1
        self._parameters = {p.value: p for p in self.model.parameters.values()}
        self._producers = graph.producers()
        norms = [self._norm(n) for n in graph.nodes if isinstance(n.op, BatchNorm)]
        self._norms = {norm.node: norm for norm in norms}
        self._absorbed: dict[Node, _Norm] = {}
        for norm in norms:
            product = self._product_before(norm)
            if product is not None:
                self._absorbed[product] = norm

    def result(self) -> Model:
        old = self.model.graph
        outputs = [self.same.get(v, v) for v in old.outputs]
        graph = Graph(list(old.inputs), outputs, self.nodes, self.constants, self.state)
        loss = self.same.get(self.model.loss, self.model.loss)
        return replace(self.model, graph=graph, outputs=[self.same.get(v, v) for v in self.model.outputs], loss=loss)

    def add(self, node: Node) -> None:
        """Append a node, or what replaces it."""
        if node in self._norms:
            self._add_norm(self._norms[node])
        elif node in self._absorbed:
            self._add_folded(node, self._absorbed[node])
        else:
            groups = node.op.groups if isinstance(node.op, Conv2d) else 1
            self.nodes.append(replace(node, inputs=tuple(self._operand(v, groups) for v in node.inputs)))

    def _trained(self, value: Value | None) -> Parameter | None:
        """The parameter that this value is, if it is trained."""
        parameter = self._parameters.get(value) if value is not None else None
        return parameter if parameter is not None and parameter.name in self.fractions else None

    def _operand(self, value: Value | None, groups: int = 1) -> Value | None:
        """The value in the new graph: a trained parameter becomes state, a constant comes along."""
        if value is None:
            return None
        value = self.same.get(value, value)
        array = self.model.graph.constants.get(value)
        if array is None or value in self.state:
            return value
        parameter = self._trained(value)
        if parameter is None:
            self.constants[value] = array
        else:
            self._train(parameter, value, array, groups=groups)
        return value

    def _train(
        self,
        parameter: Parameter,
        value: Value,
        array: Array,
        *,
        groups: int = 1,
        fold: Fold | None = None,
        factor: Array | None = None,
        norm_factor: Array | None = None,
    ) -> None:
        """Put a trained parameter into the state."""
        self.state[value] = array
        channels = channels_of(parameter, self.fractions[parameter.name], groups)
        in_axis = None if channels is None else parameter.in_axis
        binding = Binding(value.name, (parameter.name,), parameter.layout, fold=fold, channels=channels, in_axis=in_axis)
        self.trainables.append(Trainable(value, binding, channels, in_axis, factor, None, norm_factor))

    def _constant(self, name: str, array: Array) -> Value:
        value = Value(name, Type(array.shape))
        self.constants[value] = array
        return value

    def _norm(self, node: Node) -> _Norm:
        """A BatchNorm's vectors, and whether its scale and shift stay apart."""
        _, mean, var, scale, shift = node.inputs
        assert mean is not None and var is not None and isinstance(node.op, BatchNorm)
        known = self.model.graph.constants
        if mean not in known or var not in known:
            raise UnsupportedError(
                f"the BatchNorm in module {node.origin.module!r} ({node.origin.source}) has statistics that the model computes",
                "use nn.BatchNorm2d with its own running statistics",
            )
        separate = any(v is not None and v not in known for v in (scale, shift))
        separate |= self._trained(scale) is not None
        if shift is not None and self._trained(shift) is not None:
            separate |= self._uses[shift] > 1 or self._fold_of(node, separate=False) is None
        rate = 1.0 / np.sqrt(known[var].astype(np.float64) + node.op.eps)
        s = rate if separate or scale is None else rate * known[scale].astype(np.float64)
        zeros = np.zeros_like(s)
        b = zeros if separate or shift is None else known[shift].astype(np.float64)
        return _Norm(node, s, known[mean].astype(np.float64), b, separate, self._fold_of(node, separate))

    def _fold_of(self, node: Node, separate: bool) -> Fold | None:
        """The names of the tensors that fold; None where one has no name in the user's model."""
        assert isinstance(node.op, BatchNorm)
        mean, var = node.inputs[1], node.inputs[2]
        scale, shift = (None, None) if separate else node.inputs[3:5]
        assert mean is not None and var is not None
        if any(v is not None and v.name not in self.model.digests for v in (mean, var, scale, shift)):
            return None
        return Fold(mean.name, var.name, node.op.eps, scale.name if scale else None, shift.name if shift else None)

    def _product_before(self, norm: _Norm) -> Node | None:
        """The convolution or linear layer that this BatchNorm folds into."""
        x = norm.node.inputs[0]
        node = self._producers.get(x) if x is not None else None
        while node is not None and isinstance(node.op, Reshape) and self._only_one_reads(x):
            x = node.inputs[0]
            if x is None or x.shape[-1:] != norm.s.shape:
                return None
            node = self._producers.get(x)
        if node is None or not isinstance(node.op, (Conv2d, Linear)) or not self._only_one_reads(x):
            return None
        return node if self._foldable(node, norm) else None

    def _only_one_reads(self, value: Value | None) -> bool:
        return value is not None and self._uses[value] == 1

    def _foldable(self, node: Node, norm: _Norm) -> bool:
        """Whether the product's arrays can carry s, and give it back where they are trained."""
        _, weight, bias, _ = node.inputs
        known = self.model.graph.constants
        if weight not in known or (bias is not None and bias not in known):
            return False
        trained = [v for v in (weight, bias) if v is not None and self._trained(v) is not None]
        shared = any(self._uses[v] > 1 for v in trained)
        unnamed = norm.fold is None or (bias is not None and bias.name not in self.model.digests)
        size = np.abs(norm.s)
        safe = bool(size.min() > _SAFE * size.max())
        if trained and (shared or unnamed or not safe):
            return False
        return not (unnamed and self._trained(norm.node.inputs[4]) is not None and not norm.separate)

    def _add_folded(self, node: Node, norm: _Norm) -> None:
        """The product with the BatchNorm's s and shift in its weight and bias."""
        x, weight, bias, _ = node.inputs
        assert weight is not None
        known = self.model.graph.constants
        w = Value(weight.name, weight.type)
        array = known[weight].astype(np.float64) * norm.s
        parameter = self._trained(weight)
        if parameter is None:
            self.constants[w] = array
        else:
            groups = node.op.groups if isinstance(node.op, Conv2d) else 1
            self._train(parameter, w, array, groups=groups, fold=norm.fold, factor=norm.s**2, norm_factor=np.abs(norm.s))
        b = self._folded_bias(norm, bias)
        self.nodes.append(replace(node, inputs=(self._operand(x), w, b, None)))

    def _folded_bias(self, norm: _Norm, bias: Value | None) -> Value:
        """b' = s (b - mean) + shift, trained where b or shift is."""
        own = 0.0 if bias is None else self.model.graph.constants[bias].astype(np.float64)
        array = np.asarray(norm.s * (own - norm.mean) + norm.shift)
        shift = None if norm.separate else norm.node.inputs[4]
        trained_bias, trained_shift = self._trained(bias), self._trained(shift)
        names = tuple(p.name for p in (trained_bias, trained_shift) if p is not None)
        if not names:
            where = bias or shift
            return self._constant(where.name if where is not None else f"{norm.node.origin.module}.bias", array)
        value = Value(names[0], Type(array.shape))
        self.state[value] = array
        assert norm.fold is not None
        fold = replace(norm.fold, bias=None if bias is None else bias.name)
        binding = Binding(value.name, names, Layout.permuted(array.shape, (0,)), vector=True, fold=fold)
        offset = -norm.s * norm.mean
        offset = offset if trained_shift is not None else offset + norm.shift
        offset = offset if trained_bias is not None else offset + norm.s * own
        squares = (norm.s**2 if trained_bias is not None else 0.0) + (1.0 if trained_shift is not None else 0.0)
        factor = None if trained_bias is None else np.asarray(squares)
        self.trainables.append(Trainable(value, binding, None, None, factor, offset, None if factor is None else np.sqrt(factor)))
        return value

    def _add_norm(self, norm: _Norm) -> None:
        """What is left of a BatchNorm: nothing, its normalisation, its scale and shift, or both."""
        node = norm.node
        x, y = self._operand(node.inputs[0]), node.outputs[0]
        assert x is not None and y is not None
        folded = norm in self._absorbed.values()
        if not folded:
            x = self._add_affine(node, x, *self._frozen_affine(norm))
        if norm.separate:
            x = self._add_affine(node, x, *self._trained_affine(node))
        self.same[y] = x

    def _add_affine(self, node: Node, x: Value, scale: Value, shift: Value) -> Value:
        made = Value(node.outputs[0].name if node.outputs[0] else "affine", x.type)
        self.nodes.append(Node(Affine(), (x, scale, shift), (made, None, None), node.origin))
        return made

    def _frozen_affine(self, norm: _Norm) -> tuple[Value, Value]:
        """s, and shift - s mean (trained where the BatchNorm's shift is)."""
        return self._constant(f"{norm.node.origin.module}.scale", norm.s), self._folded_bias(norm, None)

    def _trained_affine(self, node: Node) -> tuple[Value, Value]:
        """The BatchNorm's own scale and shift."""
        _, mean, _, scale, shift = node.inputs
        assert mean is not None
        name, shape = node.origin.module, mean.shape
        one = self._operand(scale) if scale is not None else self._constant(f"{name}.scale", np.ones(shape))
        zero = self._operand(shift) if shift is not None else self._constant(f"{name}.shift", np.zeros(shape))
        assert one is not None and zero is not None
        return one, zero
