"""``write_back``: what a board trained goes into the user's own module, BatchNorm unfolded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.frontends.torch.capture import digests
from edgekit.frontends.torch.checks import check_module
from edgekit.graph.model import Binding, Fold
from edgekit.graph.op import Array

if TYPE_CHECKING:
    from edgekit.program import Program

_SAME = "write back into the model that was compiled"


def write_back(program: Program, state: Mapping[str, Array], model: nn.Module) -> None:
    """Put the trained arrays of ``state`` (by their names in the program) into ``model``, in place.

    A folded weight is divided by s, a folded bias loses what the BatchNorm put in. Where a convolution's bias and its
    BatchNorm's were both trained, the board has the sum of their contributions; the change since the last values is split as
    gradient descent splits it (exact without weight decay; the network's results are the same in any case). Of a weight
    trained in part only that part is written. Nothing is written unless all of it fits.

    Raises:
        InputError: it is not the model that the program was compiled from, or a frozen tensor of it has changed since.
    """
    bindings = [Binding.from_json(entry) for entry in program.metadata["bindings"]]
    write_bindings(bindings, program.metadata["digests"], state, model)


def write_bindings(
    bindings: Sequence[Binding], compiled: Mapping[str, str], state: Mapping[str, Array], model: nn.Module
) -> None:
    """``write_back`` from the program's metadata: its bindings, and the digests of the model's tensors by name."""
    check_module(model)
    trained = {name for binding in bindings for name in binding.parameters}
    _check_frozen(model, compiled, trained)
    tensors = {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    arrays = {name: t.numpy() for name, t in tensors.items()}
    written: dict[str, Array] = {}
    for binding in bindings:
        stored = np.asarray(state[binding.value], np.float64) * (1.0 if binding.scale is None else np.array(binding.scale))
        if (
            stored.shape not in (binding.layout.shape, _part(binding))
            or arrays[binding.parameters[0]].shape != binding.layout.tensor
        ):
            raise InputError(
                f"{binding.parameters[0]} has shape {arrays[binding.parameters[0]].shape}, which is not the compiled model's",
                _SAME,
            )
        written.update(_bias(binding, stored, arrays) if binding.vector else _weight(binding, stored, arrays))
    for name, array in written.items():
        tensors[name].copy_(torch.from_numpy(np.ascontiguousarray(array, np.float32)))


def _part(binding: Binding) -> tuple[int, ...]:
    """The shape of a weight's trained input channels."""
    shape, axis = binding.layout.shape, binding.in_axis
    return shape if axis is None or binding.channels is None else (*shape[:axis], binding.channels, *shape[axis + 1 :])


def _check_frozen(model: nn.Module, compiled: Mapping[str, str], trained: set[str]) -> None:
    """Everything that was not trained must be as it was when compiled.

    Raises:
        InputError: naming the first tensor that is not.
    """
    found = digests(model)
    for name, digest in compiled.items():
        if name not in found:
            raise InputError(f"the model has no {name!r}, which the compiled one had", _SAME)
        if name not in trained and found[name] != digest:
            raise InputError(
                f"{name!r} differs from the compiled model's, though the program did not train it",
                f"{_SAME}, or load the weights that it had then",
            )
    extra = [name for name in found if name not in compiled]
    if extra:
        raise InputError(f"the model has {extra[0]!r}, which the compiled one had not", _SAME)


def _scale(fold: Fold, arrays: Mapping[str, Array]) -> Array:
    """s = scale / sqrt(var + eps)."""
    rate = 1.0 / np.sqrt(arrays[fold.var].astype(np.float64) + fold.eps)
    return np.asarray(rate if fold.scale is None else rate * arrays[fold.scale].astype(np.float64))


def _weight(binding: Binding, stored: Array, arrays: Mapping[str, Array]) -> dict[str, Array]:
    name = binding.parameters[0]
    values = stored if binding.fold is None else stored / _scale(binding.fold, arrays)
    if binding.channels is not None and binding.in_axis is not None:
        whole = binding.layout.store(arrays[name]).copy()
        part = (slice(None),) * binding.in_axis + (slice(binding.channels),)
        whole[part] = values[part]
        values = whole
    return {name: binding.layout.restore(values)}


def _bias(binding: Binding, stored: Array, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Solve s (bias - mean) + shift = stored for what was trained."""
    fold = binding.fold
    assert fold is not None
    s, mean = _scale(fold, arrays), arrays[fold.mean].astype(np.float64)
    bias = 0.0 if fold.bias is None else arrays[fold.bias].astype(np.float64)
    shift = 0.0 if fold.shift is None else arrays[fold.shift].astype(np.float64)
    change = stored - (s * (bias - mean) + shift)
    if binding.parameters == (fold.shift,):
        return {binding.parameters[0]: shift + change}
    if binding.parameters == (fold.bias,):
        return {binding.parameters[0]: bias + change / s}
    share = change / (s**2 + 1.0)
    return {binding.parameters[0]: bias + s * share, binding.parameters[1]: shift + share}
