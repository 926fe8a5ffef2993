"""Looks for boards: those with a name, virtual ones that run, SSH servers that announce themselves, USB serial ports."""

from edgekit.discovery.found import Found, Search
from edgekit.discovery.search import search

__all__ = ["Found", "Search", "search"]
