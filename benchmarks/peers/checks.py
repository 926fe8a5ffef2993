"""That all peers do the same work: the same parameters to begin with, the same gradients, the same losses, nothing else moved.

Fast runs that trained nothing, or part of it, have been seen; none may get into a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.job import Job
from benchmarks.peers.workers.serve import digest

GRADIENT_TOLERANCE = 0.02  #: of each parameter's own gradient: rounding decides whether a pixel is clipped
NEGLIGIBLE = 1e-3  #: of the largest gradient: smaller differences than that are rounding
LOSS_TOLERANCE = 5e-4  #: of the first loss, of which a step takes ten times as much

States = Mapping[str, Mapping[str, Any]]  #: what a worker says of its parameters (workers/serve.py)


class Different(Exception):
    """A peer does not do the work that was asked for."""


def check_given(job: Job, states: States) -> None:
    """It has exactly the job's parameters."""
    given = job.parameters()
    _same_names(given, states)
    for name, array in given.items():
        if states[name]["sha256"] != digest(array):
            raise Different(f"{name} is not as it was given")


def check_moved(job: Job, states: States) -> None:
    """Exactly the parameters, and parts of them, to train differ from the job's."""
    given = job.parameters()
    _same_names(given, states)
    moved = {name for name, array in given.items() if states[name]["sha256"] != digest(array)}
    for text, names in (
        ("was to be trained and did not move", job.trained - moved),
        ("is frozen and moved", moved - job.trained),
    ):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise Different(f"{min(names)} {text}{others}")
    for name, state in states.items():
        if state["frozen_change"] != 0:
            raise Different(f"{name} moved beyond the part of it that is trained")


def check_step(reference: States, states: States) -> None:
    """One step of SGD moves every parameter as far as the reference's did: the gradients have the same norms."""
    largest = max(state["change"] for state in reference.values())
    for name, state in states.items():
        expected, change = reference[name]["change"], state["change"]
        if not abs(change - expected) <= GRADIENT_TOLERANCE * expected + NEGLIGIBLE * largest:
            raise Different(f"the gradient of {name} is {change / max(expected, 1e-30):.3g} times the others'")


def check_losses(reference: Sequence[float], losses: Sequence[float]) -> None:
    """The same losses step by step, as far as both went, and falling."""
    if not all(map(math.isfinite, losses)):
        raise Different("the loss left the numbers")
    for step, (expected, loss) in enumerate(zip(reference, losses, strict=False), 1):
        if abs(loss - expected) > LOSS_TOLERANCE * reference[0]:
            raise Different(f"at step {step} the loss is {loss:.5f}, the others' is {expected:.5f}")
    if not losses[-1] < losses[0]:
        raise Different(f"the loss does not fall: {losses[0]:.5f}, then {losses[-1]:.5f}")


def _same_names(given: Mapping[str, Any], states: States) -> None:
    if given.keys() != states.keys():
        raise Different(f"its parameters differ by {sorted(given.keys() ^ states.keys())}")
