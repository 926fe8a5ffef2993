"""Keeps Ctrl-C and SIGTERM out of a short piece of work, and lets them in right after."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold one signal that has a handler back until the block ends; a second one is handled at once.

    An exchange of messages that is torn apart would leave the stream in the middle of a message, and records that are
    torn from their exchange would be lost. Blocks may nest.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {s: handler for s in _SIGNALS if callable(handler := signal.getsignal(s))}
    waiting: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            handlers[signal.Signals(number)](number, frame)
        waiting.append(number)

    for s in handlers:
        signal.signal(s, hold)
    try:
        yield
    finally:
        for s, handler in handlers.items():
            signal.signal(s, handler)
        if waiting:  # also where the work failed: the error stays as the interrupt's context
            handlers[signal.Signals(waiting[0])](waiting[0], None)
