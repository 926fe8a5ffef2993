"""The command line. Its commands draw and print; what they do is done elsewhere."""

from edgekit.cli.main import main

__all__ = ["main"]
