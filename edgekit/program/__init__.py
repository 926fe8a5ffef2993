"""The Program file: write, read, verify, describe (docs/program-format.md)."""

from edgekit.program.format import Architecture, Backend, EntryKind, Storage
from edgekit.program.program import Program, load
from edgekit.program.writer import Placement, write_program

__all__ = ["Architecture", "Backend", "EntryKind", "Placement", "Program", "Storage", "load", "write_program"]
