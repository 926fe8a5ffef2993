"""The four ways to update that the demonstration compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """A name for people, what ``edgekit.compile`` is told to update, and a learning rate that suits it."""

    name: str
    update: str | Mapping[str, float]
    lr: float


SCHEMES = (
    Scheme("classifier", "head", 0.02),
    Scheme("biases", "bias:24", 0.02),
    Scheme("sparse", "last:4", 0.003),
    Scheme("full", "full", 0.002),
)
