"""What a frontend delivers: the forward graph with its loss, and how it maps to the user's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.graph.graph import Graph
from edgekit.graph.op import Array
from edgekit.graph.value import Value


@dataclass(frozen=True)
class Layout:
    """How a tensor of the user's model lies in the graph: ``tensor.reshape(view).transpose(perm).reshape(shape)``.

    ``view`` splits axes so that ``perm`` can move their parts (a linear layer after a flattened image has its rows
    reordered); it is the tensor's own shape otherwise. ``shape`` is the stored array's.
    """

    tensor: tuple[int, ...]
    view: tuple[int, ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def permuted(cls, tensor: tuple[int, ...], perm: tuple[int, ...]) -> Layout:
        """Only the axes permuted."""
        return cls(tensor, tensor, perm, tuple(tensor[p] for p in perm))

    def store(self, tensor: Array) -> Array:
        """The model's tensor as the graph holds it."""
        return tensor.reshape(self.view).transpose(self.perm).reshape(self.shape)

    def restore(self, stored: Array) -> Array:
        """The graph's array as the model holds it."""
        inverse = sorted(range(len(self.perm)), key=lambda i: self.perm[i])
        return stored.reshape([self.view[p] for p in self.perm]).transpose(inverse).reshape(self.tensor)


@dataclass(frozen=True)
class Parameter:
    """A trainable tensor of the user's model, by its name there (``features.3.conv.0.weight``).

    The graph's array is the model's as ``layout`` says. ``in_axis`` is the stored axis of the input channels that a
    fraction selects from (None: whole or nothing).
    """

    name: str
    value: Value
    layout: Layout
    in_axis: int | None = None


@dataclass(frozen=True)
class ModuleInfo:
    """A module of the user's model; ``Model.modules`` holds them in order of first execution."""

    path: str
    class_name: str


@dataclass
class Model:
    """A forward graph whose parameters are constants, before anything is chosen to be trained.

    Attributes:
        graph: inputs are ``inputs`` then ``targets``; nodes compute ``outputs`` and ``loss``.
        targets: None where the loss needs none.
        classes: the number of classes where ``targets`` are class numbers, else None.
        ignore_index: the target that the loss leaves out, where it has one.
        parameters: by name, in the order of ``model.named_parameters()``.
        digests: SHA-256 (hex) of every parameter and buffer of the model, by name.
        unused: parameters that neither loss nor outputs depend on; they are not in ``parameters``.
    """

    graph: Graph
    inputs: list[Value]
    targets: Value | None
    outputs: list[Value]
    loss: Value
    parameters: dict[str, Parameter]
    modules: list[ModuleInfo]
    classes: int | None = None
    ignore_index: int | None = None
    digests: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fold:
    """A frozen BatchNorm inside a trained array, by the names of the model's tensors.

    With s = scale / sqrt(var + eps) a weight is stored as s W and a bias as s (bias - mean) + shift. A name that is
    None does not take part: its tensor counts as 1 (``scale``) or 0.
    """

    mean: str
    var: str
    eps: float
    scale: str | None = None
    shift: str | None = None
    bias: str | None = None


@dataclass(frozen=True)
class Binding:
    """How one array of a Program's state goes back into the user's model (``write_back``).

    Attributes:
        value: the state's name.
        parameters: the model's names that the array trains: one, or a convolution's bias and its BatchNorm's.
        layout: of ``parameters[0]``.
        vector: the array is a bias (``Fold`` says what that means), not a weight.
        fold: the BatchNorm that was folded into it, None if none.
        channels: how many leading entries of the stored axis ``in_axis`` are trained; None: all.
        scale: of an array that is kept as integers, what one counts, over the last axis; None: it is kept as it is.
    """

    value: str
    parameters: tuple[str, ...]
    layout: Layout
    vector: bool = False
    fold: Fold | None = None
    channels: int | None = None
    in_axis: int | None = None
    scale: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a Program's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Binding:
        """The inverse of ``to_json``, after a trip through JSON too."""
        layout = Layout(**{name: tuple(numbers) for name, numbers in data["layout"].items()})
        fold = None if data["fold"] is None else Fold(**data["fold"])
        scale = None if data.get("scale") is None else tuple(data["scale"])
        return cls(**{**data, "parameters": tuple(data["parameters"]), "layout": layout, "fold": fold, "scale": scale})


@dataclass(frozen=True)
class Trainable:
    """One array that the board trains.

    Attributes:
        value: in the graph's ``state``.
        channels: how many leading input channels are updated, along ``in_axis``; None for the whole array.
        factor: what the gradient of the stored array is multiplied with to give the stored array's step.
        offset: where weight decay pulls the stored array to (None: 0).
        norm_factor: what the gradient is multiplied with to give the user's parameter's gradient, for norms.
        scale: of an array of integers, the number that one of them stands for.

    ``factor``, ``offset``, ``norm_factor`` and ``scale`` are vectors over the last axis.
    """

    value: Value
    binding: Binding
    channels: int | None = None
    in_axis: int | None = None
    factor: Array | None = None
    offset: Array | None = None
    norm_factor: Array | None = None
    scale: Array | None = None
