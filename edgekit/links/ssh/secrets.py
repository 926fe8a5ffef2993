"""Asking for a passphrase or a password: only where a person can answer, and never kept."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable

#: Given the question, the secret; None: nobody answers.
Ask = Callable[[str], str | None]


def ask(question: str) -> str | None:
    """Ask on the terminal; None where standard input is none."""
    if not sys.stdin.isatty():
        return None
    try:
        return getpass.getpass(f"{question}: ")
    except EOFError:
        return None
