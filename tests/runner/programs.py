"""Small Programs for the runner's tests, and the same training in NumPy (float64)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgekit.backends.cpu.capability import CPU

from edgekit.compiler import compile_program
from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.model import Binding, Model, Trainable
from edgekit.graph.op import Array
from edgekit.graph.ops.elementwise import Dropout, Unary
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.loss import CrossEntropy
from edgekit.graph.value import DType
from edgekit.program import Architecture, Backend, Program, write_program
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan

FEATURES, CLASSES, IGNORED = 3, 4, -100
STREAM = 3  #: of the dropout
MASK, GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Classifier:
    """Softmax regression: ``dropout(x)[B, 3] @ w[3, 4] + b``, cross-entropy, SGD with momentum."""

    batch: int = 4
    accumulate: int = 1
    lr: float = 0.1
    momentum: float = 0.9
    seed: int = 0
    dropout: float = 0.0

    def weights(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal((FEATURES, CLASSES)).astype(np.float32), rng.standard_normal(CLASSES).astype(np.float32)

    def program(self, architecture: Architecture = Architecture.ANY, backend: Backend = Backend.CPU) -> Program:
        w, b = self.weights()
        build = Builder()
        x = build.input("x", (self.batch, FEATURES))
        t = build.input("t", (self.batch,), DType.I32)
        weight, bias = build.state("w", w), build.state("b", b)
        kept = build(Dropout(self.dropout, STREAM), x, build.input("step", (2,), DType.I32)) if self.dropout else x
        y = build(Linear(), kept, weight, bias, name="y")
        loss = build(CrossEntropy(), y, t, name="loss")
        build.graph.outputs += [y, loss]
        model = Model(build.graph, [x], t, [y], loss, {}, [], classes=CLASSES, ignore_index=IGNORED)
        trainables = [Trainable(v, Binding(v.name, (v.name,), ())) for v in (weight, bias)]
        entries = make_plan(model, trainables, SGD(self.lr, self.momentum), accumulate=self.accumulate)
        return write_program(entries, architecture=architecture, backend=backend, batch=self.batch, accumulate=self.accumulate)

    def train(self, inputs: Array, targets: Array, order: list[list[int]], seed: int = 0) -> tuple[list[float], Array, Array]:
        """The loss of every step, then w and b: each item of ``order`` is the samples of one update."""
        w, b = (a.astype(np.float64) for a in self.weights())
        vw, vb = np.zeros_like(w), np.zeros_like(b)
        losses = []
        for step, samples in enumerate(order):
            x, t = inputs[samples].astype(np.float64), targets[samples]
            runs = range(step * self.accumulate, (step + 1) * self.accumulate)
            x *= np.concatenate([keep((self.batch, FEATURES), self.dropout, seed, run) for run in runs])
            p = softmax(x @ w + b)
            losses.append(float(-np.log(p[np.arange(len(t)), t]).mean()))
            d = (p - np.eye(CLASSES)[t]) / len(t)
            vw, vb = self.momentum * vw + x.T @ d, self.momentum * vb + d.sum(0)
            w, b = w - self.lr * vw, b - self.lr * vb
        return losses, w, b


def mix(z: int) -> int:
    """docs/program-format.md, "Randomness"."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def keep(shape: tuple[int, int], p: float, seed: int, run: int) -> Array:
    """What dropout multiplies with in the run number ``run`` of ``train_step``."""
    k = mix((seed << 32 | run) + GOLDEN & MASK)
    k = mix(k + GOLDEN * (STREAM + 1) & MASK)
    kept = [(mix(k + GOLDEN * (i + 1) & MASK) >> 40) >= math.ceil(p * 2**24) for i in range(math.prod(shape))]
    return np.array(kept).reshape(shape) / (1 - p)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def write_data(folder: Path, inputs: Array, targets: Array | None = None) -> str:
    folder.mkdir(exist_ok=True)
    np.save(folder / "inputs.npy", inputs)
    if targets is not None:
        np.save(folder / "targets.npy", targets)
    return str(folder)


def sample_data(samples: int, seed: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((samples, FEATURES)).astype(np.float32)
    return inputs, rng.integers(0, CLASSES, samples)


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch, word by word from docs/program-format.md, "Randomness"."""
    order = list(range(count))
    k = mix((seed << 32 | epoch) + GOLDEN & MASK)
    for i in range(count - 1, 0, -1):
        k = k + GOLDEN & MASK
        j = (mix(k) >> 32) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order


def slow_program(layers: int = 60, width: int = 768, batch: int = 64) -> Program:
    """A `predict` of many large products: one step takes a while, one op a small part of it."""
    build = Builder()
    x = build.input("x", (batch, FEATURES))
    rng = np.random.default_rng(0)
    value = build(Linear(), x, build.constant("first", rng.standard_normal((FEATURES, width)) / width))
    weight = build.constant("w", rng.standard_normal((width, width)) / width)
    for _ in range(layers):
        value = build(Linear(), value, weight)
    build.state("s", np.zeros(1))
    build.graph.outputs.append(value)
    entry = Entry(build.graph, (Port(Role.INPUT, x), Port(Role.OUTPUT, value)))
    return write_program({"predict": entry}, batch=batch)


def prefixed(batch: int = 4, accumulate: int = 1, seed: int = 0) -> Program:
    """A classifier of 3 features with two frozen layers, wide and narrow, whose results take 8 floats a sample."""
    rng = np.random.default_rng(seed)
    build = Builder()
    x, t = build.input("x", (batch, FEATURES)), build.input("t", (batch,), DType.I32)
    frozen = [build.constant(f"w{i}", rng.standard_normal(shape)) for i, shape in enumerate(((FEATURES, 1024), (1024, 8)))]
    bias = [build.constant(f"b{i}", rng.standard_normal(n)) for i, n in enumerate((1024, 8))]
    w, b = build.state("w", rng.standard_normal((8, CLASSES))), build.state("b", np.zeros(CLASSES))
    wide = build(Unary(Function.RELU), build(Linear(), x, frozen[0], bias[0]))
    narrow = build(Unary(Function.TANH), build(Linear(), wide, frozen[1], bias[1]))
    y = build(Linear(), narrow, w, b, name="y")
    loss = build(CrossEntropy(), y, t, name="loss")
    build.graph.outputs += [y, loss]
    model = Model(build.graph, [x], t, [y], loss, {}, [], classes=CLASSES, ignore_index=IGNORED)
    trainables = [Trainable(v, Binding(v.name, (v.name,), ())) for v in (w, b)]
    entries = make_plan(model, trainables, SGD(0.05, 0.9), accumulate=accumulate)
    return compile_program(entries, capability=CPU, batch=batch, accumulate=accumulate)
