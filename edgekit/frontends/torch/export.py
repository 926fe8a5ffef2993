"""``torch.export`` of a module together with its loss, brought to operators of the lowering table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.nn import functional
from torch.utils import _pytree as pytree

from edgekit.errors import InputError, UnsupportedError
from edgekit.frontends.torch.lowering import TABLE
from edgekit.frontends.torch.origins import user_frame, where

Loss = str | Callable[..., torch.Tensor]

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "bce_with_logits": functional.binary_cross_entropy_with_logits,
}

#: results may share memory with the operand, so writing into them in place writes into the operand
_VIEWS = frozenset(
    (
        *(
            "alias",
            "chunk",
            "contiguous",
            "detach",
            "dropout",
            "expand",
            "expand_as",
            "feature_dropout",
            "flatten",
            "getitem",
            "narrow",
        ),
        *("numpy_T", "permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "to", "transpose"),
        *("unbind", "unflatten", "unsqueeze", "view"),
    )
)


class Wrapper(nn.Module):
    """What is exported: (loss, every tensor that the model returns)."""

    def __init__(self, model: nn.Module, loss: Callable[..., torch.Tensor], named: bool) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self._named = named

    def forward(self, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        outputs = self.model(*inputs)
        leaves = pytree.tree_leaves(outputs)
        if not all(isinstance(v, torch.Tensor) for v in leaves):
            raise InputError("the model returns something that is no tensor", "return a tensor, or a tuple or dict of tensors")
        if self._named and len(leaves) != 1:
            raise InputError(
                f"the model returns {len(leaves)} tensors; a loss given by name compares one with the targets",
                "give the loss as a function of (outputs, targets)",
            )
        loss = self.loss(leaves[0] if self._named else outputs, targets)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            what = f"has shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"is a {type(loss).__name__}"
            raise InputError(f"the loss {what}", "the loss must be one number: a mean or sum over the batch")
        return (loss.reshape(()), *leaves)


def resolve_loss(loss: Loss) -> tuple[Callable[..., torch.Tensor], bool]:
    """The loss as a function, and whether it was a name.

    Raises:
        InputError: neither a known name nor callable.
    """
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss], True
    if not callable(loss):
        raise InputError(f"unknown loss {loss!r}", f"give one of {', '.join(LOSSES)}, or a function of (outputs, targets)")
    return loss, False


def export(model: nn.Module, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None, loss: Loss) -> ExportedProgram:
    """Export, functionalise, and decompose what the table lacks.

    Raises:
        InputError: the model or the loss does not run on the example.
        UnsupportedError: control flow that depends on data, a model that changes its own buffers or inputs.
    """
    function, named = resolve_loss(loss)
    wrapper = Wrapper(model, function, named)
    wrapper.training = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(wrapper, (inputs, targets), strict=False)
            if not all(_fits(node) for node in _calls(program)):
                program = program.run_decompositions(_decompositions())
        except InputError:
            raise
        except Exception as e:
            raise _explained(e, wrapper, inputs, targets) from e
    _check_mutations(program)
    return program


def _calls(program: ExportedProgram) -> Iterator[fx.Node]:
    return (node for node in program.graph.nodes if node.op == "call_function")


def operator_name(node: fx.Node) -> str:
    """``aten.conv2d.default``; ``getitem`` for taking results apart; the name of an in-place twin without its ``_``."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", str(node.target))
    namespace, name, overload = str(node.target).split(".")
    return f"{namespace}.{name.removesuffix('_')}.{overload}"


def writes_in_place(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _fits(node: fx.Node) -> bool:
    """Whether the table has the node's operator, and it writes into nothing that anything else reads."""
    name = operator_name(node)
    if name == "getitem":
        return True
    if not writes_in_place(node):
        return name in TABLE
    written = node.args[0]
    fresh = isinstance(written, fx.Node) and written.op == "call_function" and _base(written) not in _VIEWS
    return name in TABLE and fresh and isinstance(written, fx.Node) and len(written.users) == 1


def _base(node: fx.Node) -> str:
    name = operator_name(node)
    return name.split(".")[1] if "." in name else name


def _decompositions() -> dict[Any, Any]:
    """Core ATen, less what the table takes whole."""
    table = dict(torch.export.default_decompositions())
    return {op: rule for op, rule in table.items() if str(op) not in TABLE}


def _check_mutations(program: ExportedProgram) -> None:
    for spec in program.graph_signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION, OutputKind.PARAMETER_MUTATION):
            target = (spec.target or "").removeprefix("model.")
            made = next((n for n in program.graph.nodes if n.name == getattr(spec.arg, "name", None)), None)
            place = f": {where(made)}" if made is not None else ""
            raise UnsupportedError(
                f"the model writes into {target!r} while it runs{place}",
                "boards keep only trained parameters between steps: compute without changing buffers or inputs",
            )


def _explained(e: Exception, wrapper: Wrapper, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None) -> InputError:
    """Whose fault a failed export is: the model on this example, or a model that cannot be a fixed graph."""
    try:
        with torch.no_grad():
            wrapper(inputs, targets)
    except InputError as ours:
        return ours
    except Exception as plain:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        return InputError(
            f"the model or its loss fails on the example (inputs {shapes}): {_first_line(plain)}",
            "check the example's shapes and dtypes",
        )
    kind = type(e).__name__
    control = "GuardOnDataDependent" in kind or "data-dependent" in str(e).lower() or "control flow" in str(e).lower()
    reason = "its control flow depends on data" if control else _first_line(e)
    return UnsupportedError(
        f"the model cannot be exported as a fixed graph: {reason}{_user_line(e)}",
        "torch.export.export(model, example) must accept it; make branches and shapes independent of tensor values",
    )


def _first_line(e: Exception) -> str:
    lines = [line for line in str(e).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(e).__name__


def _user_line(e: Exception) -> str:
    """Where in the user's code an exception passed."""
    line = user_frame(e)
    return f" ({line})" if line else ""
