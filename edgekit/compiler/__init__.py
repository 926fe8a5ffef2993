"""From the entries of a training plan to a Program: passes, order, memory (docs/passes.md)."""

from edgekit.compiler.compile import compile_program

__all__ = ["compile_program"]
