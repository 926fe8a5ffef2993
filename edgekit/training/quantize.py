"""Post-training quantisation: a folded float model becomes one that computes in int8 (docs/quantization.md).

The float network runs on calibration inputs, which gives every activation its range. Then each node that has an integer form is
replaced by it; a node that has none computes in float32 between a ``dequantize`` and a ``quantize``. Trained weights and biases
become int8 and int32 states. Or only the frozen beginning is replaced, which no gradient passes through; the rest stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgekit.errors import InputError, UnsupportedError
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model, Trainable
from edgekit.graph.op import Array
from edgekit.graph.ops.conv import Conv2d
from edgekit.graph.ops.elementwise import Binary, Dropout, Reduce, Unary
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.pool import AdaptiveAvgPool2d
from edgekit.graph.ops.quantized import HIGH, LOW, MOST_TERMS, Dequantize, QAdd, QConv2d, QMean, Quantize
from edgekit.graph.ops.shape import Permute, Reshape, Slice
from edgekit.graph.value import DType, Type, Value
from edgekit.training.plan import restrict

_MOVES = (Reshape, Permute, Slice)  #: ops that keep what an int8 element stands for
_CLAMPS = (Function.RELU, Function.RELU6)
_IMAGE_MEAN = 0b0110  #: the axes of ``Reduce`` over height and width
_WEIGHT_MOST = 127
_ROOM = 2.0  #: how far a trained weight may outgrow its channel's largest


@dataclass(frozen=True)
class Range:
    """The least and the largest number that an activation took."""

    low: float
    high: float

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Quantized:
    """A model in int8, how its trained arrays are trained, and the (scale, zero) of each int8 input, None of others.

    ``boundary``: where only the beginning is in int8, what the rest reads of it: the float model's values and what took their
    place.
    """

    model: Model
    trainables: list[Trainable]
    inputs: list[Array | None]
    boundary: dict[Value, Value]


def calibrate(model: Model, inputs: Sequence[Array], until: Sequence[Value] | None = None) -> dict[Value, Range]:
    """Run the float network on ``inputs`` (one array for each of the model's, samples first) in the model's batches: what makes
    its outputs, or the values ``until``.

    Raises:
        InputError: the arrays do not fit the model's inputs, or fill no batch.
    """
    samples = _check_inputs(model, inputs)
    batch = model.inputs[0].shape[0]
    graph = restrict(model.graph, list(model.outputs if until is None else until))
    found: dict[Value, Range] = {}
    for start in range(0, samples - batch + 1, batch):
        feeds = {v: a[start : start + batch] for v, a in zip(model.inputs, inputs, strict=True)}
        made = interpret(graph, feeds, dtype=np.float32)
        for v, a in made.items():
            if v.dtype is DType.F32 and v not in graph.constants and v not in graph.state:
                seen = Range(float(a.min()), float(a.max()))
                found[v] = found[v].union(seen) if v in found else seen
    return found


def quantization(seen: Range) -> Array:
    """(scale, zero) in float32, so that the range, widened to hold 0, fills int8 and 0 is a whole number."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    scale = np.float32(max(high - low, 1e-6) / (HIGH - LOW))
    zero = np.clip(np.rint(LOW - low / scale), LOW, HIGH)
    return np.array([scale, zero], np.float32)


def quantize(
    model: Model,
    trainables: Sequence[Trainable],
    inputs: Sequence[Array],
    *,
    scaled_updates: bool = True,
    prefix_only: bool = False,
) -> Quantized:
    """The folded model in int8, calibrated on ``inputs``.

    The model's float inputs become int8 inputs; its outputs and its loss stay float32. ``scaled_updates=False`` leaves out the
    quantisation-aware scaling: the integers are trained as if they were the parameters themselves, for comparison.
    ``prefix_only``: only what depends on no trained array; the model's inputs stay float32.

    Raises:
        InputError: the calibration inputs do not fit, or nothing before the first trained array has an integer form.
        UnsupportedError: the model drops out.
    """
    if prefix_only:
        return _quantize_prefix(model, trainables, inputs)
    for node in model.graph.nodes:
        if isinstance(node.op, Dropout):
            raise UnsupportedError(
                f"the dropout in module {node.origin.module!r} cannot be quantised", "leave dropout in evaluation mode"
            )
    wanted = frozenset(model.graph.nodes)
    converter = _Converter(model, {t.value: t for t in trainables}, calibrate(model, inputs), scaled_updates, wanted)
    for v in model.inputs:
        converter.take(v)
    return converter.run()


def _quantize_prefix(model: Model, trainables: Sequence[Trainable], inputs: Sequence[Array]) -> Quantized:
    frozen = frozen_nodes(model)
    if not any(isinstance(node.op, (Conv2d, Linear)) for node in frozen):
        raise InputError(
            "no convolution or linear layer lies before the first trained array", "quantise the whole model, or train less of it"
        )
    ranges = calibrate(model, inputs, [v for node in frozen for v in node.writes])
    return _Converter(model, {t.value: t for t in trainables}, ranges, True, frozen).run()


def frozen_nodes(model: Model) -> frozenset[Node]:
    """The nodes that depend on samples and constants alone, not on trained arrays, targets or chance: no gradient passes them."""
    moving = {*model.graph.state, *model.graph.inputs}.difference(model.inputs)
    found = set()
    for node in model.graph.nodes:
        if any(v in moving for v in node.reads):
            moving.update(node.writes)
        else:
            found.add(node)
    return frozenset(found)


def _check_inputs(model: Model, inputs: Sequence[Array]) -> int:
    if len(inputs) != len(model.inputs):
        raise InputError(f"{len(inputs)} calibration arrays for {len(model.inputs)} inputs", "give one array for each input")
    for v, a in zip(model.inputs, inputs, strict=True):
        if a.shape[1:] != v.shape[1:] or len(a) != len(inputs[0]):
            raise InputError(
                f"calibration inputs of shape {a.shape} for an input of {v.shape}",
                "give samples like the example's: float32, samples first",
            )
    if len(inputs[0]) < model.inputs[0].shape[0]:
        raise InputError(
            f"{len(inputs[0])} calibration samples fill no batch of {model.inputs[0].shape[0]}", "give a hundred or so"
        )
    return len(inputs[0])


@dataclass(frozen=True)
class _Whole:
    """An int8 value and its (scale, zero)."""

    value: Value
    quant: Value


@dataclass
class _Converter:
    """Builds the int8 graph node by node. A value has an int8 form, a float form, or both. Nodes that are not ``wanted`` stay."""

    model: Model
    trainables: dict[Value, Trainable]
    ranges: dict[Value, Range]
    scaled_updates: bool
    wanted: frozenset[Node]
    build: Builder = field(default_factory=lambda: Builder(Graph()))
    whole: dict[Value, _Whole] = field(default_factory=dict)
    real: dict[Value, Value] = field(default_factory=dict)
    trained: dict[Value, Trainable] = field(default_factory=dict)  #: by the float model's value
    done: set[Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        old = self.model.graph
        self._readers = old.consumers()
        self._kept = {*old.outputs, *self.model.outputs, self.model.loss}
        self.build.graph.inputs = list(old.inputs)
        self.real = {v: v for v in old.inputs}

    def take(self, v: Value) -> None:
        """Make a float input one in int8."""
        if v.dtype is not DType.F32 or v not in self.ranges:
            return
        inputs = self.build.graph.inputs
        whole = Value(v.name, Type(v.shape, DType.I8))
        inputs[inputs.index(v)] = whole
        del self.real[v]
        self._record(v, whole, self._quant(v))

    def run(self) -> Quantized:
        """Convert all of the model."""
        for node in self.model.graph.nodes:
            if node not in self.done:
                self._add(node)
        return self.result()

    def _add(self, node: Node) -> None:
        """Append what replaces a node."""
        self.build.origin = node.origin
        if (convert := self._rule(node)) is not None:
            convert(self, node)
            return
        made = replace(node, inputs=tuple(None if v is None else self._float(v) for v in node.inputs))
        self.build.graph.nodes.append(made)
        self.real.update({v: v for v in node.writes})

    def _rule(self, node: Node) -> Callable[[_Converter, Node], None] | None:
        """What gives a node its integer form."""
        if node not in self.wanted:
            return None
        return next((convert for fits, convert in _RULES if fits(self, node)), None)

    def result(self) -> Quantized:
        """The model with its inputs, outputs and loss in their new forms."""
        given = [self.whole.get(v) for v in self.model.inputs]
        inputs = [v if w is None else w.value for v, w in zip(self.model.inputs, given, strict=True)]
        outputs, loss = [self._float(v) for v in self.model.outputs], self._float(self.model.loss)
        graph = self.build.graph
        graph.outputs = [self._float(v) for v in self.model.graph.outputs]
        trained = [self.trained.get(v, t) for v, t in self.trainables.items()]
        model = replace(self.model, graph=graph, inputs=inputs, outputs=outputs, loss=loss)
        quants = [None if w is None else graph.constants[w.quant] for w in given]
        return Quantized(model, trained, quants, {v: self.real[v] for v in self._boundary()})

    def _boundary(self) -> Iterator[Value]:
        """What nodes that stay read of what others make from the inputs."""
        for node in self.model.graph.nodes:
            if node in self.wanted:
                made = (v for v in node.writes if v in self.ranges)
                yield from (v for v in made if not self.wanted.issuperset(self._readers.get(v, ())))

    # --- values ---

    def _record(self, v: Value, whole: Value, quant: Value) -> None:
        self.whole[v] = _Whole(whole, quant)

    def _quant(self, v: Value) -> Value:
        return self.build.constant(f"{v.name}.quant", quantization(self.ranges[v]))

    def is_activation(self, v: Value | None) -> bool:
        """Whether an operand depends on the inputs, and its range is known."""
        return v is not None and v in self.ranges

    def _float(self, v: Value) -> Value:
        """The float form; a parameter or constant comes along."""
        if v in self.real:
            return self.real[v]
        old, graph = self.model.graph, self.build.graph
        if v in self.whole:
            self.real[v] = self.build(Dequantize(), self.whole[v].value, self.whole[v].quant, name=f"{v.name}.real")
        else:
            (graph.state if v in old.state else graph.constants)[v] = (old.state if v in old.state else old.constants)[v]
            self.real[v] = v
        return self.real[v]

    def _int8(self, v: Value) -> _Whole:
        """The int8 form of an activation."""
        if v not in self.whole:
            quant = self._quant(v)
            self._record(v, self.build(Quantize(), self._float(v), quant, name=f"{v.name}.int8"), quant)
        return self.whole[v]

    def _only_reader(self, v: Value) -> Node | None:
        readers = self._readers.get(v, [])
        return readers[0] if len(readers) == 1 and v not in self._kept else None

    def _clamped(self, node: Node) -> Value:
        """The value that an int8 result stands for: the node's, or that of the relu which alone reads it, taken along."""
        y = node.outputs[0]
        assert y is not None
        then = self._only_reader(y)
        if then is None or not isinstance(then.op, Unary) or then.op.fn not in _CLAMPS or then.outputs[0] is None:
            return y
        self.done.add(then)
        return then.outputs[0]

    # --- products ---

    def is_product(self, node: Node) -> bool:
        """A convolution or linear layer of an activation with arrays that nothing else reads, in a shape that QConv2d has."""
        if not isinstance(node.op, (Conv2d, Linear)) or not self.is_activation(node.outputs[0]):
            return False
        x, w, bias, residual = node.inputs
        assert x is not None and w is not None
        arrays = [v for v in (w, bias) if v is not None]
        known = all(self.model.graph.array(v) is not None and self._only_reader(v) is node for v in arrays)
        if not known or not self.is_activation(x) or residual is not None or node.op.act is not Function.IDENTITY:
            return False
        if int(np.prod(w.shape[:-1])) > MOST_TERMS:
            return False
        return isinstance(node.op, Linear) or node.op.groups == 1 or node.op.groups == w.shape[3] == x.shape[3]

    def add_product(self, node: Node) -> None:
        """A linear layer is a 1×1 convolution over an image of one row."""
        x, w, bias, _ = node.inputs
        assert x is not None and w is not None
        given, y, real = self._int8(x), self._clamped(node), self._leaves(node)
        image, shape = given.value, w.shape
        if isinstance(node.op, Linear):
            image = self._reshaped(image, (1, 1, x.type.size // x.shape[-1], x.shape[-1]))
            shape = (1, 1, *w.shape)
        weight, rest, scale = self._weight(w, shape, node.op.groups if isinstance(node.op, Conv2d) else 1)
        unit = np.asarray(np.float32(self.build.graph.constants[given.quant][0]) * scale, np.float32)
        b = None if bias is None else self._bias(bias, unit)
        w_scale = self.build.constant(f"{w.name}.scale", scale)
        quant = None if real else self._quant(y)
        op = node.op
        product = QConv2d(op.stride, op.padding, op.dilation, op.groups) if isinstance(op, Conv2d) else QConv2d()
        made = self.build(replace(product, real=real), image, weight, w_scale, given.quant, quant, b, rest, name=y.name)
        made = self._reshaped(made, y.shape)
        if quant is None:
            self.real[y] = made
        else:
            self._record(y, made, quant)

    def _leaves(self, node: Node) -> bool:
        """Whether only ops that compute in float32 read a product's result."""
        y = node.outputs[0]
        assert y is not None
        readers = self._readers.get(y, [])
        wanted = (r for r in readers if r in self.wanted)
        return not any(r in self.done or isinstance(r.op, _MOVES) or self._rule(r) is not None for r in wanted)

    def _reshaped(self, v: Value, shape: tuple[int, ...]) -> Value:
        return v if v.shape == shape else self.build(Reshape.to(shape), v)

    def _weight(self, w: Value, shape: tuple[int, ...], groups: int) -> tuple[Value, Value | None, Array]:
        """Symmetric int8, one scale an output channel: the largest weight is ±127, or half of that where it is trained. Input
        channels that are not trained are a constant of their own."""
        array = np.asarray(self.model.graph.array(w), np.float64)
        largest = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
        largest = largest * _ROOM if w in self.trainables else largest
        scale = np.where(largest > 0, largest / _WEIGHT_MOST, 1.0).astype(np.float32)
        t = self.trainables.get(w)
        if t is None or t.channels is None or t.in_axis is None or groups > 1:
            return self._integers(w, array, scale, DType.I8, shape), None, scale
        array = array.reshape(shape)
        rest = np.clip(np.rint(array[:, :, t.channels :] / scale), -_WEIGHT_MOST, _WEIGHT_MOST)
        trained = self._integers(w, array[:, :, : t.channels], scale, DType.I8, (*shape[:2], t.channels, shape[3]))
        return trained, self.build.constant(f"{w.name}.rest", rest.astype(np.int8), DType.I8), scale

    def _bias(self, bias: Value, unit: Array) -> Value:
        array = np.asarray(self.model.graph.array(bias), np.float64)
        return self._integers(bias, array, unit, DType.I32, bias.shape)

    def _integers(self, v: Value, array: Array, scale: Array, dtype: DType, shape: tuple[int, ...]) -> Value:
        """A parameter, or its trained input channels, as integers in units of ``scale``, over the last axis: a state if it is
        trained."""
        most = _WEIGHT_MOST if dtype is DType.I8 else (1 << 31) - 1
        whole = np.clip(np.rint(array / scale), -most, most).reshape(shape).astype(np.int8 if dtype is DType.I8 else np.int32)
        t = self.trainables.get(v)
        if t is None:
            return self.build.constant(v.name, whole, dtype)
        value = self.build.state(v.name, whole, dtype)
        added = len(shape) - len(v.shape)
        layout = replace(t.binding.layout, shape=(*shape[:added], *v.shape))
        axis = None if t.in_axis is None else t.in_axis + added
        binding = replace(t.binding, layout=layout, in_axis=axis, scale=tuple(map(float, scale)))
        factor = t.factor if self.scaled_updates else scale.astype(np.float64) ** 2
        self.trained[v] = replace(t, value=value, binding=binding, in_axis=axis, factor=factor, scale=scale)
        return value

    # --- the rest ---

    def is_sum(self, node: Node) -> bool:
        a, b = node.inputs[:2] if isinstance(node.op, Binary) else (None, None)
        if not isinstance(node.op, Binary) or node.op.fn is not Arithmetic.ADD or a is None or b is None or a is b:
            return False
        return self.is_activation(a) and self.is_activation(b) and a.shape == b.shape

    def add_sum(self, node: Node) -> None:
        a, b = node.inputs
        assert a is not None and b is not None
        left, right, y = self._int8(a), self._int8(b), self._clamped(node)
        quant = self._quant(y)
        made = self.build(QAdd(), left.value, right.value, left.quant, right.quant, quant, name=y.name)
        self._record(y, made, quant)

    def is_image_mean(self, node: Node) -> bool:
        x, op = node.inputs[0] if node.inputs else None, node.op
        if x is None or not self.is_activation(x) or len(x.shape) != 4 or x.shape[1] * x.shape[2] > 1 << 22:
            return False
        if isinstance(op, Reduce):
            return op.fn is Reduction.MEAN and op.axes == _IMAGE_MEAN
        return isinstance(op, AdaptiveAvgPool2d) and op.output == (1, 1)

    def add_image_mean(self, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None and y is not None
        given, quant = self._int8(x), self._quant(y)
        made = self.build(QMean(), given.value, given.quant, quant, name=y.name)
        self._record(y, self._reshaped(made, y.shape), quant)

    def is_move(self, node: Node) -> bool:
        """An op that moves int8 elements as they are."""
        return isinstance(node.op, _MOVES) and node.inputs[0] in self.whole

    def add_move(self, node: Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None and y is not None
        given = self.whole[x]
        self._record(y, self.build(node.op, given.value, name=y.name), given.quant)


_Rule = tuple[Callable[[_Converter, Node], bool], Callable[[_Converter, Node], None]]
_RULES: tuple[_Rule, ...] = (
    (_Converter.is_product, _Converter.add_product),
    (_Converter.is_sum, _Converter.add_sum),
    (_Converter.is_image_mean, _Converter.add_image_mean),
    (_Converter.is_move, _Converter.add_move),
)
