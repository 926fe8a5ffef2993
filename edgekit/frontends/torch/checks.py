"""What must hold of the user's module before it is exported."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from edgekit.errors import InputError, UnsupportedError
from edgekit.frontends.torch.messages import some


def check_module(model: nn.Module) -> None:
    """Check mode, device and dtype.

    Raises:
        InputError: it is no module, is in training mode, or its tensors are not float32 on the CPU.
        UnsupportedError: it holds tensors of a kind that edgekit does not know (sparse, quantised).
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module", "give the module itself, not its class or result"
        )
    _check_mode(model)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        _check_tensor(name, tensor)
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds NaN or infinity", "load weights that are finite")


def _check_mode(model: nn.Module) -> None:
    norms = [name or type(model).__name__ for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]
    if not model.training and not norms:
        return
    where = f"BatchNorm {some(norms)} " if norms else "the model "
    raise InputError(
        f"{where}is in training mode; boards train with frozen BatchNorm statistics, as in evaluation mode",
        "call model.eval() before compiling (a Dropout that shall work on the board is then set to .train() by itself)",
    )


def _check_tensor(name: str, tensor: torch.Tensor) -> None:
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        raise InputError(
            f"{name} has no shape yet: it belongs to a lazy module", "run the model once on an example before compiling"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnsupportedError(f"{name} is a {tensor.layout} tensor", "use dense float32 parameters")
    if tensor.device.type != "cpu":
        raise InputError(f"{name} is on {tensor.device}", "move the model to the CPU: model.cpu()")
    if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype is not torch.float32:
        raise InputError(f"{name} is {tensor.dtype}; boards compute in float32", "convert the model: model.float()")


def check_batch(inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None) -> None:
    """Check the example: tensors on the CPU, float32 or integer, of one batch size.

    Raises:
        InputError: it is not so.
    """
    named = [(f"inputs[{i}]" if len(inputs) > 1 else "inputs", x) for i, x in enumerate(inputs)]
    named += [] if targets is None else [("targets", targets)]
    for name, x in named:
        if not isinstance(x, torch.Tensor):
            raise InputError(f"the example's {name} is a {type(x).__name__}", "give torch tensors: (inputs, targets)")
        if x.device.type != "cpu":
            raise InputError(f"the example's {name} is on {x.device}", "move it to the CPU: .cpu()")
        if x.dtype not in (torch.float32, torch.int64, torch.int32):
            raise InputError(f"the example's {name} is {x.dtype}", "give float32 values, or int64 class numbers as targets")
        if x.dim() == 0 or x.numel() == 0:
            raise InputError(
                f"the example's {name} has shape {tuple(x.shape)}", "give a batch: the first axis counts samples, at least 1"
            )
    sizes = {name: x.shape[0] for name, x in named}
    if len(set(sizes.values())) > 1:
        stated = ", ".join(f"{name}: {n}" for name, n in sizes.items())
        raise InputError(
            f"the example's batch sizes differ ({stated})", "the first axis of inputs and targets counts the same samples"
        )
