"""Whether what a program's frozen prefix makes of each sample is kept on the board, so that later epochs run only the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from edgekit.errors import InputError
from edgekit.program import Program
from edgekit.protocol import Client
from edgekit.protocol.messages import Cache

Caching = Literal["auto", "off", "float32", "float16", "int8"]
CACHING: tuple[Caching, ...] = get_args(Caching)
FILE = "prefix.cache"


def choose_cache(
    client: Client, program: Program, caching: Caching, budget: int | None, *, epochs: int, streamed: bool, file: Path | None
) -> Cache | None:
    """The key ``cache`` of a start; None: every epoch computes all of it.

    Args:
        caching: ``auto``: in float32, which changes no number, where samples come more than once.
        budget: the most bytes of the file; None: a quarter of the board's free disk.
        file: where it lies, of a session that the board does not keep.

    Raises:
        InputError: it was asked for, and cannot be.
    """
    if caching not in CACHING:
        raise InputError(f"cache is {caching!r}", f"it is one of {', '.join(CACHING)}")
    if budget is not None and budget < 1:
        raise InputError(f"the cache's budget is {budget} bytes", "give a size, or cache='off'")
    reason = _obstacle(program, streamed)
    if reason is not None and caching not in ("auto", "off"):
        raise InputError(f"the cache cannot be used: {reason}", "leave out --cache")
    if reason is not None or caching == "off" or (caching == "auto" and epochs == 1):
        return None
    path = None if file is None else client.board_path(file)
    return Cache(storage="float32" if caching == "auto" else caching, budget=budget, path=path)


def _obstacle(program: Program, streamed: bool) -> str | None:
    if "prefix" not in program.entries:
        return "little or nothing is frozen at the program's beginning"
    return "the data set is streamed" if streamed else None
