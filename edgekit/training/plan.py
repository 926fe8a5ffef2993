"""The entry points of a training Program, from a forward graph, what is to be trained and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekit.errors import InputError
from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.graph import Graph, Node, Origin
from edgekit.graph.model import Model, Trainable
from edgekit.graph.op import Array
from edgekit.graph.ops.elementwise import Dropout
from edgekit.graph.ops.loss import ArgmaxMatch, CrossEntropy, NllLoss
from edgekit.graph.ops.update import Accumulate, ClipCoefficient, Fill, SgdUpdate, SumSquares
from edgekit.graph.value import DType, Type, Value
from edgekit.training.absorb import absorb_affines
from edgekit.training.autodiff import Differentiated, differentiate
from edgekit.training.optimizers import SGD

#: of seed and step
STEP = Type((2,), DType.I32)
#: the random streams of integer parameters; lower ones are those of dropout
_STREAMS = 1 << 16


def make_plan(
    model: Model, trainables: Sequence[Trainable], optimizer: SGD, *, accumulate: int = 1, clip_norm: float | None = None
) -> dict[str, Entry]:
    """The entries ``train_step``, ``evaluate``, ``predict``, and ``update`` where gradients are accumulated.

    ``model.graph`` is the folded forward graph with the trainables in its state. With ``accumulate`` > 1 a ``train_step`` adds
    1/accumulate of its micro-batch's gradient to the state and ``update`` makes the step. ``clip_norm`` scales the step's
    gradients so that the norm of all, taken over the user's own parameters, is at most this (``torch.nn.utils.clip_grad_norm_``).

    Raises:
        InputError: nothing to train, or an option out of range.
        UnsupportedError: an op between a trained array and the loss has no gradient.
    """
    if accumulate < 1:
        raise InputError(f"accumulate is {accumulate}", "give the number of micro-batches per update, at least 1")
    if clip_norm is not None and not (math.isfinite(clip_norm) and clip_norm > 0):
        raise InputError(f"the gradient norm to clip at is {clip_norm}", "give a number > 0")
    partial = {t.value for t in trainables if t.channels is not None}
    model = replace(model, graph=absorb_affines(model.graph, partial))
    step = _train_step(model, trainables, 1.0 / accumulate)
    if not step.gradients:
        raise InputError("the loss depends on nothing that is trained", "name parameters that the loss depends on")
    trained = [(t, step.gradients[t.value]) for t in trainables if t.value in step.gradients]
    entries: dict[str, Entry] = {}
    build = Builder(step.graph, Origin("optimizer"))
    if accumulate > 1:
        totals = [(t, build.state(f"{t.value.name}.gradient", np.zeros(g.shape))) for t, g in trained]
        for (_, total), (_, gradient) in zip(totals, trained, strict=True):
            build.emit(Accumulate(), total, gradient, results=())
        update = Graph(state=dict(step.graph.state))
        build = Builder(update, build.origin)
        _updates(build, totals, optimizer, clip_norm)
        for _, total in totals:
            build.emit(Fill(0.0), total, results=())
        entries["update"] = Entry(update, _ports(model, update, loss=False, outputs=False))
        step.graph.state.update(update.state)
    else:
        _updates(build, trained, optimizer, clip_norm)
    entries["train_step"] = Entry(step.graph, _ports(model, step.graph, loss=True, outputs=False))
    return entries | _inference(model)


def _train_step(model: Model, trainables: Sequence[Trainable], seed: float) -> Differentiated:
    forward = restrict(model.graph, [model.loss])
    return differentiate(forward, model.loss, trainables, seed)


def _updates(build: Builder, gradients: list[tuple[Trainable, Value]], optimizer: SGD, clip_norm: float | None) -> None:
    """Append the optimizer's step of every trained array."""
    clip = None
    if clip_norm is not None:
        total = None
        for t, g in gradients:
            total = build(SumSquares(), g, _vector(build, t, "norm_factor", t.norm_factor, g), total, name="norm.squared")
        if total is not None:
            clip = build(ClipCoefficient(clip_norm), total, name="clip")
    plain = SgdUpdate(optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov)
    step = _step_input(build) if any(t.scale is not None for t, _ in gradients) else None
    for i, (t, g) in enumerate(gradients):
        velocity = build.state(f"{t.value.name}.velocity", np.zeros(g.shape)) if optimizer.momentum else None
        build.origin = Origin(t.binding.parameters[0] if t.binding.parameters else t.value.name)
        factor = _vector(build, t, "factor", t.factor, g)
        offset = _vector(build, t, "offset", t.offset, g) if optimizer.weight_decay else None
        if t.scale is None:
            build.emit(plain, t.value, g, velocity, factor, offset, clip, results=())
            continue
        scale = build.constant(f"{t.value.name}.scale", t.scale)
        build.emit(replace(plain, stream=_STREAMS + i), t.value, g, velocity, factor, offset, clip, scale, step, results=())


def _step_input(build: Builder) -> Value:
    """The graph's ``step`` input: the one that is there, or a new one."""
    known = (v for v in build.graph.inputs if v.type == STEP)
    return next(known, None) or build.input("step", STEP.shape, STEP.dtype)


def _vector(build: Builder, t: Trainable, what: str, array: Array | None, gradient: Value) -> Value | None:
    """A per-channel or whole array of a trainable as a constant, cut to the trained part."""
    if array is None:
        return None
    sizes = gradient.shape[-1:] if array.ndim == 1 else gradient.shape
    return build.constant(f"{t.value.name}.{what}", array[tuple(slice(n) for n in sizes)])


def _inference(model: Model) -> dict[str, Entry]:
    """``evaluate`` and ``predict``: the forward graph, its dropout left out."""
    model = without_dropout(model)
    evaluate = restrict(model.graph, [model.loss, *model.outputs])
    ports = _ports(model, evaluate, loss=True, outputs=True)
    scores = _scores(model)
    if scores is not None:
        build = Builder(evaluate)
        ignored = -100 if model.ignore_index is None else model.ignore_index
        correct = build(ArgmaxMatch(ignored), scores, model.targets, name="correct")
        evaluate.outputs.append(correct)
        ports = (*ports, Port(Role.CORRECT, correct))
    predict = restrict(model.graph, model.outputs)
    return {"evaluate": Entry(evaluate, ports), "predict": Entry(predict, _ports(model, predict, loss=False, outputs=True))}


def restrict(graph: Graph, outputs: list[Value]) -> Graph:
    """What of ``graph`` computes ``outputs``: no other node, and no input that nothing reads (unless it is an output)."""
    wanted = set(outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in wanted for v in node.writes):
            nodes.append(node)
            wanted.update(node.reads)
    constants = {v: a for v, a in graph.constants.items() if v in wanted}
    return Graph([v for v in graph.inputs if v in wanted], list(outputs), nodes[::-1], constants, dict(graph.state))


def _ports(model: Model, graph: Graph, *, loss: bool, outputs: bool) -> tuple[Port, ...]:
    """What the runner fills and reads, of what ``graph`` has."""
    ports = []
    for v in graph.inputs:
        if v in model.inputs:
            ports.append(Port(Role.INPUT, v, model.inputs.index(v)))
        elif v is model.targets:
            high = model.classes or 0
            ignore = model.ignore_index if model.classes and model.ignore_index is not None else 0
            ports.append(Port(Role.TARGET, v, 0, 0, high, ignore))
        elif v.type == STEP:
            ports.append(Port(Role.STEP, v))
    if loss:
        ports.append(Port(Role.LOSS, model.loss))
    if outputs:
        ports += [Port(Role.OUTPUT, v, i) for i, v in enumerate(model.outputs)]
    return tuple(ports)


def _scores(model: Model) -> Value | None:
    """The class scores, on the last axis, that the targets are compared with; None where there is no such thing."""
    if model.classes is None or model.targets is None:
        return None
    node = model.graph.producers().get(model.loss)
    candidates = [node.inputs[0]] if node is not None and isinstance(node.op, (CrossEntropy, NllLoss)) else model.outputs[:1]
    fitting = [v for v in candidates if v is not None and v.shape[:-1] == model.targets.shape]
    return fitting[0] if fitting else None


def without_dropout(model: Model) -> Model:
    """The model with every dropout's result replaced by its operand."""
    same: dict[Value, Value] = {}
    nodes = []
    for node in model.graph.nodes:
        inputs = tuple(same.get(v, v) if v is not None else None for v in node.inputs)
        if isinstance(node.op, Dropout):
            x, y = inputs[0], node.outputs[0]
            assert x is not None
            assert y is not None
            same[y] = x
        else:
            nodes.append(replace(node, inputs=inputs))
    graph = replace(model.graph, nodes=nodes, outputs=[same.get(v, v) for v in model.graph.outputs])
    return replace(model, graph=graph, outputs=[same.get(v, v) for v in model.outputs], loss=same.get(model.loss, model.loss))
