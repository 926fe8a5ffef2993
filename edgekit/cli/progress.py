"""Live progress on stderr: a moving line on a terminal; elsewhere a line now and then of a training session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from edgekit.cli.output import number, size
from edgekit.links.progress import Moved
from edgekit.telemetry import Record

_QUIET_SECONDS = 2.0  #: between lines where nothing can move


class TrainingProgress:
    """Show each record as it comes; use it in a ``with`` statement."""

    def __init__(self, console: Console, steps: int, standing: Callable[[], str] = str) -> None:
        """``standing`` says more about the session, while it waits too."""
        self._console = console
        self._steps = steps
        self._standing = standing
        self._last = -_QUIET_SECONDS
        text = TextColumn("{task.description}")
        columns = (BarColumn(12), MofNCompleteColumn(), text, TimeRemainingColumn(compact=True))  # fits 80 characters
        self._bar = Progress(*columns, _Standing(standing), console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, record: Record) -> None:
        """Show where training stands."""
        text = (
            f"loss {record.loss:.4f}  {record.step_ns / 1e6:.2f} ms/step  {size(record.rss_bytes)}  "
            f"{number(record.temperature_c, '.1f')} °C"
        )
        self._bar.update(self._task, completed=record.step, description=text)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last >= _QUIET_SECONDS or record.step == self._steps):
            self._last = now
            line = f"step {record.step}/{self._steps}  epoch {record.epoch}  {text}  {self._standing()}"
            self._console.print(line.rstrip(), soft_wrap=True)


class _Standing(ProgressColumn):
    """Asked at every refresh."""

    def __init__(self, standing: Callable[[], str]) -> None:
        super().__init__()
        self._text = standing

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(self._text())


@contextmanager
def counted(console: Console, text: str) -> Iterator[Callable[[int, int], object]]:
    """A bar for work of a known number of parts, on a terminal: what it gives is told (parts done, parts in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TransferProgress:
    """Show files as they move to and from a board: a bar that comes with the first piece and goes with the last."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, moved: Moved) -> None:
        if self._bar is None and moved.done < moved.total:
            columns = (TextColumn("{task.description}"), BarColumn(20), DownloadColumn(binary_units=True), TransferSpeedColumn())
            self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
            self._task = self._bar.add_task(moved.name, total=moved.total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, description=moved.name, completed=moved.done, total=moved.total)
        if moved.done >= moved.total:
            self.stop()

    def stop(self) -> None:
        """The bar goes, where there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
