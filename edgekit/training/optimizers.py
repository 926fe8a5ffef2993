"""Optimizers, with the names and meanings of torch.optim."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.errors import InputError


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as ``torch.optim.SGD`` (dampening 0).

    Attributes:
        lr: the step size, > 0.
        momentum: 0 ≤ momentum < 1; 0 keeps no velocity.
        weight_decay: L2 penalty, ≥ 0.
        nesterov: Nesterov momentum; needs momentum.

    Raises:
        InputError: a value is out of range.
    """

    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        for name, value in (("lr", self.lr), ("momentum", self.momentum), ("weight_decay", self.weight_decay)):
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise InputError(f"SGD: {name} is {value!r}", "give a finite number ≥ 0")
        if self.lr == 0:
            raise InputError("SGD: lr is 0, which trains nothing", "give a step size > 0, for example lr=0.01")
        if self.momentum >= 1:
            raise InputError(f"SGD: momentum is {self.momentum}, which diverges", "give 0 ≤ momentum < 1, for example 0.9")
        if self.nesterov and self.momentum == 0:
            raise InputError("SGD: nesterov needs momentum", "give momentum=0.9, or leave nesterov out")
