"""``capture``: a module, an example batch and a loss become a ``Model``."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from edgekit.errors import InputError
from edgekit.frontends.torch import lower_elementwise, lower_loss, lower_pool, lower_products, lower_shape
from edgekit.frontends.torch.checks import check_batch, check_module
from edgekit.frontends.torch.export import Loss, export, operator_name
from edgekit.frontends.torch.lowering import TABLE, Lowering, type_of
from edgekit.frontends.torch.origins import WRAPPED, modules_of, origin_of
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph
from edgekit.graph.model import Model, ModuleInfo
from edgekit.graph.op import Array, ShapeError
from edgekit.graph.ops.loss import CrossEntropy, NllLoss
from edgekit.graph.value import MAX_RANK, Value

_RULES = (lower_elementwise, lower_loss, lower_pool, lower_products, lower_shape)  # importing them fills the table


def capture(model: nn.Module, example: tuple[Any, torch.Tensor | None], loss: Loss) -> Model:
    """The forward graph of ``model`` and ``loss`` on a batch of the example's shapes.

    ``example`` is (inputs, targets); inputs is one tensor or a tuple of them, the first axis of each counts samples.
    ``loss`` is a name (cross_entropy, mse, l1, bce_with_logits) or a function of (what the model returns, targets) that
    gives one number. Images stay NCHW at the graph's border; inside, convolutions are NHWC between permutations.

    Raises:
        InputError: the model is in training mode, on another device, of another dtype, or fails on the example.
        UnsupportedError: an operator without a rule, named with its module and the user's line; data-dependent control flow.
    """
    inputs, targets = _split(example)
    check_module(model)
    check_batch(inputs, targets)
    program = export(model, inputs, targets, loss)
    lowering, given = _prepare(program, model)
    results = _lower(program, lowering)
    graph = lowering.build.graph
    graph.outputs = list(results)
    target = given[len(inputs)] if targets is not None else None
    classes, ignore_index = _classes(graph, target)
    used = lowering.parameters
    names = [name for name, _ in model.named_parameters()]
    return Model(
        graph=graph,
        inputs=given[: len(inputs)],
        targets=target,
        outputs=list(results[1:]),
        loss=results[0],
        parameters={name: used[name] for name in names if name in used},
        modules=_modules(program),
        classes=classes,
        ignore_index=ignore_index,
        digests=digests(model),
        unused=tuple(name for name in names if name not in used),
    )


def _classes(graph: Graph, targets: Value | None) -> tuple[int | None, int | None]:
    """The number of classes and the target to ignore, where the targets are class numbers of one loss."""
    for node in graph.nodes:
        if isinstance(node.op, (CrossEntropy, NllLoss)) and node.inputs[1] is targets and node.inputs[0] is not None:
            return node.inputs[0].shape[-1], node.op.ignore_index
    return None, None


def digests(model: nn.Module) -> dict[str, str]:
    """SHA-256 of every parameter's and buffer's shape, dtype and row-major bytes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: _digest(tensor.detach().numpy()) for name, tensor in tensors}


def _digest(array: Array) -> str:
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _split(example: object) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        raise InputError("the example is no pair", "give (inputs, targets); inputs may itself be a tuple of tensors")
    inputs, targets = example
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), targets


def _prepare(program: ExportedProgram, model: nn.Module) -> tuple[Lowering, list[Value]]:
    """A lowering that knows the program's tensors and inputs; and the inputs, in order, targets last.

    Tensors that are not the user's module's get a name in parentheses, which no module's can be.
    """
    names = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    lowering = Lowering(Builder(), {}, frozenset(name for name, _ in model.named_parameters()))
    given: list[Value] = []
    for spec in program.graph_signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(node.meta["val"], torch.Tensor):
                name = f"input{len(given)}"
                value = lowering.build.input(name, type_of(node).shape, type_of(node).dtype)
                lowering.values[node] = value
                given.append(value)
        elif spec.target is not None:
            tensor = _named_tensor(program, model, spec.target)
            if tensor is not None:
                lowering.tensors[node] = (names.get(id(tensor), f"({spec.target})"), tensor.detach().numpy())
    return lowering, given


def _named_tensor(program: ExportedProgram, model: nn.Module, target: str) -> torch.Tensor | None:
    """A parameter, buffer or constant that the program names; the user's own tensor where it is one."""
    if target.startswith(f"{WRAPPED}."):
        path, _, leaf = target.removeprefix(f"{WRAPPED}.").rpartition(".")
        try:
            found = getattr(model.get_submodule(path), leaf)
        except AttributeError:
            found = None
        if isinstance(found, torch.Tensor):
            return found
    stored = program.state_dict.get(target, program.constants.get(target))
    return stored if isinstance(stored, torch.Tensor) else None


def _lower(program: ExportedProgram, lowering: Lowering) -> tuple[Value, ...]:
    """Lower all nodes; returns the loss and the outputs."""
    for node in program.graph.nodes:
        if node.op == "call_function":
            lowering.node = node
            lowering.build.origin = origin_of(node)
            made = _lower_node(lowering, node)
            if made is not None:
                lowering.values[node] = made
        elif node.op == "get_attr":
            tensor = getattr(program.graph_module, str(node.target))
            if isinstance(tensor, torch.Tensor):
                lowering.tensors[node] = (f"({node.target})", tensor.detach().numpy())
        elif node.op == "output":
            lowering.node = node
            return tuple(lowering.value(ref) for ref in node.args[0])
    raise AssertionError("an exported graph ends with its output")


def _lower_node(to: Lowering, node: fx.Node) -> Any:
    name = operator_name(node)
    if name == "getitem":
        return to.values[node.args[0]][node.args[1]]  # type: ignore[index]
    rule = TABLE.get(name)
    if rule is None:
        return _constant(to, node)
    fake = node.meta.get("val")
    shapes = [fake.shape] if isinstance(fake, torch.Tensor) else []
    if any(len(shape) > MAX_RANK for shape in shapes):
        raise to.unsupported(f"makes an array of {len(shapes[0])} dimensions; {MAX_RANK} are the most")
    try:
        return rule(to, *_arguments(node))
    except ShapeError as e:
        raise to.unsupported(f"does not fit ({e})") from e


def _arguments(node: fx.Node) -> list[Any]:
    """By position, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in schema), node.args, strict=False)) | dict(node.kwargs)
    return [given.get(a.name, a.default_value) for a in schema if a.name in given or a.has_default_value()]


def _constant(to: Lowering, node: fx.Node) -> None:
    """An operator without a rule whose operands are all known (``arange``, ``zeros``) is computed here and now.

    Raises:
        UnsupportedError: it depends on the batch or on a parameter.
    """
    fixed = all(ref in to.tensors and to.tensors[ref][0] not in to.trainable for ref in node.all_input_nodes)
    if node.meta.get("val") is None:
        return  # an assertion, or a note for autograd
    if not fixed or not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in node.target.tags:
        raise to.unsupported("is not supported")
    arguments = fx.map_arg((node.args, node.kwargs), lambda ref: torch.from_numpy(np.ascontiguousarray(to.tensors[ref][1])))
    made = node.target(*arguments[0], **arguments[1])
    if not isinstance(made, torch.Tensor) or made.dtype not in (torch.float32, torch.int64, torch.int32):
        raise to.unsupported("is not supported")
    to.tensors[node] = (f"({node.name})", made.detach().numpy())


def _modules(program: ExportedProgram) -> list[ModuleInfo]:
    found: dict[str, ModuleInfo] = {}
    for node in program.graph.nodes:
        for module in modules_of(node):
            found.setdefault(module.path, module)
    return list(found.values())
