"""What a loaded program takes on the board."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.program import Program
from edgekit.protocol import Loaded


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose.

    Attributes:
        arena: activations, gradients and what lives no longer than a step.
        state: trained parameters, momentum, accumulated gradients.
        constants: frozen parameters, mapped from the program's file.
        scratch: the kernels' working space.
        prepared: frozen weights packed for the instruction set.
        trained: the trained parameters' part of ``state``.
    """

    arena: int
    state: int
    constants: int
    scratch: int
    prepared: int
    trained: int

    @property
    def training_bytes(self) -> int:
        """All but the parameters themselves."""
        return self.arena + self.scratch + self.prepared + self.state - self.trained

    @property
    def parameter_bytes(self) -> int:
        """The model's parameters, frozen and trained."""
        return self.constants + self.trained


def memory_of(program: Program, loaded: Loaded) -> Memory:
    """Put together what the board said when it loaded ``program``, and what the program's bindings say."""
    names = {binding["value"] for binding in program.metadata.get("bindings", [])}
    trained = sum(program.tensor(name).type.nbytes for name in names)
    return Memory(loaded.arena, loaded.state, loaded.constants, loaded.scratch, loaded.prepared, trained)
