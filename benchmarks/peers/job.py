"""What a worker gets: a folder with a network as a list of layers, its parameters, one batch, and what to train.

Parameters and inputs have PyTorch's layout: NCHW images, OIHW filters (a depthwise one has I = 1), linear weights [out, in].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
T = TypeVar("T")

INPUT = "input"  #: the name of the network's input among the layers' results


@dataclass(frozen=True)
class Layer:
    """One operator. Images are square in all that these fields say.

    Attributes:
        op: conv, linear, relu, relu6, add, max_pool, or mean (over the pixels: NCHW to NC).
        output: the result's name.
        inputs: names of other layers' results, or ``input``.
        weight, bias: names of parameters.
        kernel, stride, padding: of conv and max_pool; padding on each side.
        groups: of conv: 1, or depthwise as many as channels.
        in_place: nobody else reads the first input, so that its memory can take the result.
    """

    op: str
    output: str
    inputs: tuple[str, ...]
    weight: str = ""
    bias: str = ""
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    in_place: bool = False


def walk(layers: Iterable[Layer], given: T, apply: Callable[..., T]) -> T:
    """The network's result: ``apply(layer, *inputs)`` on each layer. Lets go of results as soon as nobody reads them any more."""
    layers = list(layers)
    last = {name: i for i, layer in enumerate(layers) for name in layer.inputs}
    values = {INPUT: given}
    del given
    for i, layer in enumerate(layers):
        arguments = [
            values.pop(name) if last[name] == i and layer.inputs.count(name) == 1 else values[name] for name in layer.inputs
        ]
        values[layer.output] = apply(layer, *arguments)
        del arguments
    return values[layers[-1].output]


@dataclass(frozen=True)
class Part:
    """What is trained of a parameter: the first ``count`` along ``axis``, input channels (of a depthwise filter, its channels).

    PyTorch's users, and others', have no such thing: they compute the whole gradient and apply this part of it.
    """

    axis: int
    count: int

    def mask(self, array: Array) -> Array:
        """1 where the array is trained and 0 elsewhere, of its shape."""
        where = np.zeros_like(array)
        self.of(where)[...] = 1
        return where

    def of(self, array: Array) -> Array:
        """The trained part; a view."""
        return array[(slice(None),) * self.axis + (slice(self.count),)]


@dataclass(frozen=True)
class Job:
    """One network, one batch, and the plain SGD step to do: ``w -= lr * g`` on the mean cross-entropy's gradient.

    Attributes:
        trained: names of the parameters to update; all others are frozen.
        parts: of those that are not updated whole, by name, what is.
        threads: to compute with.
    """

    folder: Path
    layers: tuple[Layer, ...]
    trained: frozenset[str]
    lr: float
    threads: int
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def program(self) -> Path:
        """The edgekit program of the same work."""
        return self.folder / "model.ekp"

    @property
    def module(self) -> Path:
        """The network as a PyTorch module, for its worker that wants one."""
        return self.folder / "model.pt"

    def parameters(self) -> dict[str, Array]:
        """float32 arrays by name."""
        with np.load(self.folder / "parameters.npz") as arrays:
            return dict(arrays)

    def masks(self) -> dict[str, Array]:
        """What to multiply the gradients of ``parts`` with, by name, in the parameters' layouts."""
        given = self.parameters() if self.parts else {}
        return {name: part.mask(given[name]) for name, part in self.parts.items()}

    def batch(self) -> tuple[Array, Array]:
        """float32 images [N, C, H, W], and int64 classes [N]."""
        with np.load(self.folder / "batch.npz") as arrays:
            return arrays["inputs"], arrays["targets"]

    def save(self, parameters: dict[str, Array], inputs: Array, targets: Array) -> None:
        np.savez(self.folder / "parameters.npz", **parameters)  # type: ignore[arg-type]
        np.savez(self.folder / "batch.npz", inputs=inputs, targets=targets)
        head = {"layers": [asdict(layer) for layer in self.layers], "trained": sorted(self.trained), "lr": self.lr}
        parts = {name: asdict(part) for name, part in self.parts.items()}
        (self.folder / "job.json").write_text(json.dumps(head | {"threads": self.threads, "parts": parts}))

    @classmethod
    def load(cls, folder: Path) -> Job:
        head = json.loads((folder / "job.json").read_text())
        layers = tuple(Layer(**layer | {"inputs": tuple(layer["inputs"])}) for layer in head["layers"])
        parts = {name: Part(**part) for name, part in head["parts"].items()}
        return cls(folder, layers, frozenset(head["trained"]), head["lr"], head["threads"], parts)
