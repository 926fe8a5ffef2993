"""Boards at a serial line: SMP in frames, files by SMP's file group, and log lines in between."""

from edgekit.links.serial.line import Line, open_line
from edgekit.links.serial.link import SerialLink

__all__ = ["Line", "SerialLink", "open_line"]
