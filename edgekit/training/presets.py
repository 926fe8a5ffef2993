"""Published update schemes, by name.

The numbers are from Lin et al., "On-Device Training Under 256KB Memory" (NeurIPS 2022) and their published code: the biases of
the last layers, and fractions of the input channels of single convolutions, counted from 0 in order of execution. The
classifier is trained whole with every preset: a new task brings new classes. The ``pockengine`` schemes are the rule of thumb
of Zhu et al., "PockEngine" (MICRO 2023), as it is remembered; no retrievable source confirmed their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgekit.errors import InputError
from edgekit.training.blocks import Structure


class Preset(Protocol):
    """A scheme that can be applied to a network of the kind it was published for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about it."""

    def fractions(self, name: str, structure: Structure) -> dict[str, float]:
        """By parameter name.

        Raises:
            InputError: the network is not of that kind.
        """


@dataclass(frozen=True)
class LayerPreset:
    """Biases of the last ``biases`` layers, the classifier not counted, and of single convolutions' weights these fractions.

    ``convolutions`` is the number of them in the network it was published for, None where it is not known.
    """

    biases: int
    weights: dict[int, float]
    convolutions: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        return ("the classifier is updated whole beside the preset",)

    def fractions(self, name: str, structure: Structure) -> dict[str, float]:
        layers = [layer for layer in structure.layers if layer.convolution]
        fits = len(layers) == self.convolutions if self.convolutions else len(layers) > max(self.weights)
        if not fits or self.biases > len(layers):
            wanted = self.convolutions or f"at least {max(self.weights) + 1}"
            raise InputError(
                f"the preset {name!r} is for a network of {wanted} convolutions; this one has {len(layers)}",
                "use last:N or bias:N instead",
            )
        found = {bias: 1.0 for layer in layers[-self.biases :] for bias in layer.biases}
        for index, fraction in self.weights.items():
            weight = layers[index].weight
            if weight is not None:
                found[weight] = fraction
        return found


@dataclass(frozen=True)
class BlockPreset:
    """Biases and the first 1×1 convolution of the last blocks."""

    blocks: int
    of: int  #: the number of blocks in the network it was published for

    @property
    def notes(self) -> tuple[str, ...]:
        return ("the classifier is updated whole beside the preset", "unverified: PockEngine's scheme as it is remembered")

    def fractions(self, name: str, structure: Structure) -> dict[str, float]:
        if len(structure.blocks) != self.of:
            raise InputError(
                f"the preset {name!r} is for a network of {self.of} blocks; this one has {len(structure.blocks)}",
                "use last:N or bias:N instead",
            )
        found: dict[str, float] = {}
        for block in structure.blocks[-self.blocks :]:
            found.update({bias: 1.0 for layer in block.layers for bias in layer.biases})
            first = next((la.weight for la in block.layers if la.kernel == (1, 1) and la.groups == 1 and la.weight), None)
            found.update({first: 1.0} if first is not None else {})
        return found


def _every_third(first: int, last: int, **changed: float) -> dict[int, float]:
    """The first convolutions of consecutive inverted residuals, whole, but for ``changed`` (``c42=0.125``)."""
    return dict.fromkeys(range(first, last + 1, 3), 1.0) | {int(key[1:]): fraction for key, fraction in changed.items()}


PRESETS: dict[str, Preset] = {
    "mcunet-49kb": LayerPreset(20, {24: 0.25, 27: 0.5, 30: 0.5}),
    "mcunet-99kb": LayerPreset(22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 0.125, 39: 0.25}),
    "mcunet-148kb": LayerPreset(23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 0.5}),
    "mobilenetv2-49kb": LayerPreset(16, {36: 1, 39: 1, 41: 0.25, 42: 0.125, 45: 0.125, 48: 0.125, 49: 0.125}, 52),
    "mobilenetv2-99kb": LayerPreset(25, _every_third(27, 48, c42=0.125, c45=0.5), 52),
    "mobilenetv2-138kb": LayerPreset(34, _every_third(27, 48), 52),
    "proxyless-49kb": LayerPreset(21, {39: 0.25, 42: 1, 45: 1, 51: 0.125, 54: 0.25, 57: 0.25}),
    "proxyless-148kb": LayerPreset(45, _every_third(36, 57)),
    "pockengine-mobilenetv2": BlockPreset(7, 17),
    "pockengine-resnet50": BlockPreset(8, 16),
}
