"""Small valid Programs: at least one for every op, and one with entries, ports and state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.op import Op
from edgekit.graph.ops import conv, elementwise, linear, loss, pool, quantized, shape, update
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.value import DType, Type, Value
from edgekit.program import Program, write_program
from edgekit.program.format import DIGEST_AT, DIGEST_FROM

SCALAR = Type(())
STEP = Type((2,), DType.I32)


@dataclass(frozen=True)
class Sample:
    """One op with the types of its operands and the results that it makes."""

    op: Op
    operands: tuple[Type | None, ...]
    results: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        return self.op.name


def f32(*shape: int) -> Type:
    return Type(shape)


def i32(*shape: int) -> Type:
    return Type(shape, DType.I32)


def u8(*shape: int) -> Type:
    return Type(shape, DType.U8)


def i8(*shape: int) -> Type:
    return Type(shape, DType.I8)


def bits(*shape: int) -> Type:
    return Type(shape, DType.BITS)


QUANT = f32(2)
RELU, SILU = Function.RELU, Function.SILU
WINOGRAD = conv.Algorithm.WINOGRAD
_WINDOW = {"stride": (2, 1), "padding": (1, 1, 0, 2), "dilation": (1, 2)}

SAMPLES: tuple[Sample, ...] = (
    Sample(linear.Linear(RELU), (f32(3, 5), f32(5, 7), f32(7), f32(3, 7)), (0, 1, 2)),
    Sample(linear.Linear(), (f32(5), f32(5, 7), None, None)),
    Sample(linear.LinearInputGrad(RELU), (f32(3, 7), f32(5, 7), f32(3, 5), bits(3, 5))),
    Sample(linear.LinearInputGrad(SILU), (f32(2, 3, 7), f32(5, 7), None, f32(2, 3, 5))),
    Sample(linear.LinearWeightGrad(), (f32(2, 3, 5), f32(2, 3, 7)), (0, 1)),
    Sample(conv.Conv2d(**_WINDOW, act=RELU), (f32(2, 7, 6, 3), f32(3, 2, 3, 4), f32(4), f32(2, 4, 6, 4)), (0, 1, 2)),
    Sample(conv.Conv2d(groups=4, padding=(1, 1, 1, 1)), (f32(1, 5, 5, 4), f32(3, 3, 1, 8), None, None)),
    Sample(
        conv.Conv2dInputGrad((7, 6), **_WINDOW, act=RELU), (f32(2, 4, 6, 4), f32(3, 2, 3, 4), f32(2, 7, 6, 3), bits(2, 7, 6, 3))
    ),
    Sample(conv.Conv2dInputGrad((5, 5), padding=(1, 1, 1, 1), groups=4), (f32(1, 5, 5, 8), f32(3, 3, 1, 8), None, None)),
    Sample(conv.Conv2dWeightGrad((3, 2), **_WINDOW), (f32(2, 7, 6, 3), f32(2, 4, 6, 4)), (0, 1)),
    Sample(conv.Conv2d(algorithm=WINOGRAD), (f32(1, 5, 5, 16), f32(3, 3, 16, 4), None, None)),
    Sample(conv.Conv2dInputGrad((5, 5), algorithm=WINOGRAD), (f32(1, 3, 3, 16), f32(3, 3, 4, 16), None, None)),
    Sample(conv.Conv2dWeightGrad((3, 3), algorithm=WINOGRAD), (f32(1, 5, 5, 16), f32(1, 3, 3, 32)), (0, 1)),
    Sample(elementwise.Unary(Function.RELU6), (f32(3, 9),), (0, 1)),
    Sample(elementwise.Unary(Function.GELU), (f32(),)),
    Sample(elementwise.UnaryGrad(SILU), (f32(3, 9), f32(3, 9))),
    Sample(elementwise.ApplyMask(2.0), (f32(3, 9), bits(3, 9))),
    Sample(elementwise.Dropout(0.25, 3), (f32(3, 9), STEP), (0, 1)),
    Sample(elementwise.Binary(Arithmetic.MUL), (f32(2, 3, 1), f32(4))),
    Sample(elementwise.Affine(RELU), (f32(3, 5), f32(5), f32(5)), (0, 1, 2)),
    Sample(elementwise.Reduce(Reduction.MEAN, 0b101), (f32(2, 3, 4),)),
    Sample(elementwise.Reduce(Reduction.MAX, 0b10, True), (f32(2, 3, 4),)),
    Sample(elementwise.Expand.to((2, 3, 4)), (f32(3, 1),)),
    Sample(shape.Permute.of(2, 0, 1), (f32(2, 3, 4),)),
    Sample(shape.Slice(1, 1, 2, 3), (f32(2, 5, 3),)),
    Sample(shape.Unslice(1, 1, 5, 3), (f32(2, 2, 3),)),
    Sample(shape.Concat(1), (f32(2, 1, 3), f32(2, 4, 3), None, f32(2, 2, 3), None, None, None, None)),
    Sample(pool.MaxPool2d((3, 2), **_WINDOW), (f32(2, 7, 6, 3),), (0, 1)),
    Sample(pool.MaxPool2dGrad((7, 6), (3, 2), **_WINDOW), (f32(2, 4, 6, 3), u8(2, 4, 6, 3))),
    Sample(pool.AvgPool2d((3, 2), (2, 1), (1, 1, 0, 1), False), (f32(2, 7, 6, 3),)),
    Sample(pool.AvgPool2dGrad((7, 6), (3, 2), (2, 1), (1, 1, 0, 1), True), (f32(2, 4, 6, 3),)),
    Sample(pool.AdaptiveAvgPool2d((3, 2)), (f32(2, 7, 5, 3),)),
    Sample(pool.AdaptiveAvgPool2dGrad((7, 5)), (f32(2, 3, 2, 3),)),
    Sample(loss.CrossEntropy(Reduction.MEAN, -100, 0.1), (f32(4, 5), i32(4))),
    Sample(loss.CrossEntropyGrad(Reduction.SUM, 2), (f32(4, 5), i32(4), SCALAR)),
    Sample(loss.Softmax(True), (f32(4, 5),)),
    Sample(loss.SoftmaxGrad(), (f32(4, 5), f32(4, 5))),
    Sample(loss.NllLoss(), (f32(4, 5), i32(4))),
    Sample(loss.NllLossGrad(classes=5), (i32(2, 4), SCALAR)),
    Sample(loss.ArgmaxMatch(), (f32(4, 5), i32(4))),
    Sample(update.SgdUpdate(0.1, 0.9, 1e-4, True), (f32(5, 7), f32(3, 7), f32(3, 7), f32(7), f32(3, 7), SCALAR), ()),
    Sample(update.SgdUpdate(), (f32(5, 7), f32(5, 7), None, None, None, None), ()),
    Sample(
        update.LinearSgd(0.1, 0.9, 1e-4, True),
        (f32(2, 4, 3), f32(2, 4, 7), f32(1, 1, 5, 7), f32(1, 1, 3, 7), f32(7), f32(7)),
    ),
    Sample(update.LinearSgd(), (f32(4, 5), f32(4, 7), f32(5, 7), None, None, None), ()),
    Sample(update.Accumulate(), (f32(5, 7), f32(5, 7)), ()),
    Sample(update.Fill(1.5), (f32(5, 7),), ()),
    Sample(update.SumSquares(), (f32(3, 7), f32(7), SCALAR)),
    Sample(update.ClipCoefficient(2.0), (SCALAR,)),
    Sample(quantized.Quantize(), (f32(2, 3, 9), QUANT), (0, 1)),
    Sample(quantized.Dequantize(), (i8(2, 3, 9), QUANT)),
    Sample(quantized.QConv2d(**_WINDOW), (i8(2, 7, 6, 3), i8(3, 2, 3, 4), f32(4), QUANT, QUANT, i32(4)), (0, 1)),
    Sample(
        quantized.QConv2d(**_WINDOW),
        (i8(2, 7, 6, 3), i8(3, 2, 2, 4), f32(4), QUANT, QUANT, i32(4), i8(3, 2, 1, 4)),
        (0, 1),
    ),
    Sample(quantized.QConv2d(groups=4, padding=(1, 1, 1, 1)), (i8(1, 5, 5, 4), i8(3, 3, 1, 4), f32(4), QUANT, QUANT)),
    Sample(quantized.QConv2d(real=True), (i8(1, 1, 3, 5), i8(1, 1, 5, 7), f32(7), QUANT, None, i32(7))),
    Sample(quantized.QAdd(), (i8(2, 3, 9), i8(2, 3, 9), QUANT, QUANT, QUANT), (0, 1)),
    Sample(quantized.QMean(), (i8(2, 3, 4, 9), QUANT, QUANT), (0, 1)),
    Sample(linear.LinearInputGrad(RELU), (f32(3, 7), i8(5, 7), f32(3, 5), bits(3, 5), f32(7))),
    Sample(linear.LinearWeightGrad(), (i8(2, 3, 5), f32(2, 3, 7), QUANT), (0, 1)),
    Sample(conv.Conv2dInputGrad((7, 6), **_WINDOW), (f32(2, 4, 6, 4), i8(3, 2, 3, 4), None, None, f32(4))),
    Sample(conv.Conv2dWeightGrad((3, 2), **_WINDOW), (i8(2, 7, 6, 3), f32(2, 4, 6, 4), QUANT), (0, 1)),
    Sample(update.SgdUpdate(0.1, 0.9), (i8(5, 7), f32(3, 7), f32(3, 7), f32(7), None, None, f32(7), STEP), ()),
    Sample(update.SgdUpdate(), (i32(7), f32(7), None, None, None, None, f32(7), STEP), ()),
    Sample(shape.Permute.of(2, 0, 1), (i8(2, 3, 4),)),
)


def program_of(sample: Sample) -> Program:
    """A Program whose ``predict`` is the one op. Weights are constants, what is written in place is state."""
    build = Builder()
    values: list[Value | None] = []
    for i, type_ in enumerate(sample.operands):
        name = sample.op.operands[i].rstrip("?")
        if type_ is None:
            values.append(None)
        elif i in sample.op.mutates:
            values.append(build.state(name, np.full(type_.shape, 0.5), type_.dtype))
        elif name in ("w", "bias", "scale", "shift", "index", "mask"):
            values.append(build.constant(name, np.ones(type_.shape), type_.dtype))
        else:
            values.append(build.input(name, type_.shape, type_.dtype))
    build.emit(sample.op, *values, results=sample.results)
    return write_program({"predict": Entry(build.graph, ())})


def training_program(classes: int = 3, features: int = 4, batch: int = 2) -> Program:
    """Softmax regression: train_step (with dropout), evaluate and predict; one constant, parameter and velocity in the state."""
    weight = np.linspace(-1, 1, features * classes).reshape(features, classes)

    w, velocity = Value("w", f32(features, classes)), Value("velocity", f32(features, classes))
    bias = Value("bias", f32(classes))

    def start() -> tuple[Builder, Value, Value, Value]:
        build = Builder()
        build.graph.state.update({w: weight, velocity: np.zeros_like(weight)})
        build.graph.constants[bias] = np.arange(classes) / 8
        x = build.input("x", (batch, features))
        targets = build.input("targets", (batch,), DType.I32)
        return build, x, targets, build(linear.Linear(), x, w, bias, name="logits")

    def ports(x: Value, targets: Value) -> tuple[Port, ...]:
        return Port(Role.INPUT, x), Port(Role.TARGET, targets, low=0, high=classes, ignore=-100)

    train, x, targets, logits = start()
    step = train.input("step", (2,), DType.I32)
    kept = train(elementwise.Dropout(0.25, 1), x, step)
    one = train.constant("one", np.ones(()))
    value = train(loss.CrossEntropy(), logits, targets, name="loss")
    dlogits = train(loss.CrossEntropyGrad(), logits, targets, one)
    dw = train(linear.LinearWeightGrad(), kept, dlogits)
    train.emit(update.SgdUpdate(0.5, 0.9), w, dw, velocity, results=())
    train_ports = (*ports(x, targets), Port(Role.STEP, step), Port(Role.LOSS, value))

    evaluate, ex, et, elogits = start()
    eloss = evaluate(loss.CrossEntropy(), elogits, et, name="loss")
    correct = evaluate(loss.ArgmaxMatch(), elogits, et)
    evaluate_ports = (*ports(ex, et), Port(Role.LOSS, eloss), Port(Role.CORRECT, correct))

    predict = Builder()
    predict.graph.state.update(evaluate.graph.state)
    predict.graph.constants.update({bias: evaluate.graph.constants[bias]})
    px = predict.input("x", (batch, features))
    scores = predict(loss.Softmax(), predict(linear.Linear(), px, w, bias))
    entries = {
        "train_step": Entry(train.graph, train_ports),
        "evaluate": Entry(evaluate.graph, evaluate_ports),
        "predict": Entry(predict.graph, (Port(Role.INPUT, px), Port(Role.OUTPUT, scores))),
    }
    return write_program(entries, batch=batch, metadata={"model": "sample"})


def seal(data: bytes) -> bytes:
    """The bytes with their digest made right."""
    return data[:DIGEST_AT] + hashlib.sha256(data[DIGEST_FROM:]).digest() + data[DIGEST_FROM:]


def flips(data: bytes, at: int) -> Iterator[bytes]:
    """The bytes with every single bit of byte ``at`` flipped, and with all of them, digest made right."""
    for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
        yield seal(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
