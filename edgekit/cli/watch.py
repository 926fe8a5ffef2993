"""What ``train``, ``attach`` and ``resume`` share: a session watched to its end, and its report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from edgekit.cli.output import number, path, report, size, stderr
from edgekit.cli.progress import TrainingProgress
from edgekit.errors import InputError
from edgekit.telemetry import summarize

if TYPE_CHECKING:
    from edgekit.protocol.messages import Cached
    from edgekit.sessions import Session


def watch(session: Session) -> None:
    """Show a session live until it is over, then report; also at Ctrl-C and SIGTERM, which stop a board that we started."""
    try:
        with TrainingProgress(stderr(), session.planned, lambda: standing(session)) as progress:
            for record in session:
                progress.show(record)
    except (KeyboardInterrupt, SystemExit):  # SIGINT, SIGTERM
        if session.watched:
            session.detach()
        report_session(session)
        raise
    report_session(session)


def standing(session: Session) -> str:
    """What a streamed session's data does: empty where it is all on the board."""
    feeder = session.feeder
    if session.waiting and feeder is None:
        return "waiting for data: `edgekit attach … --data DIR` brings it"
    brought = "" if feeder is None or not feeder.total else f"shard {feeder.brought}/{feeder.total}"
    return "  ".join(filter(None, (brought, "waiting for data" if session.waiting else "")))


def cache_text(cached: Cached) -> str:
    """How much of a frozen prefix was cached, and why not more."""
    if cached.rows == 0:
        return f"not cached: {cached.why}"
    text = f"cached in {cached.storage} for {cached.rows} of {cached.samples} samples, {size(cached.bytes)}"
    return f"{text}; no more: {cached.why}" if cached.why else text


def detach(session: Session, device: str) -> None:
    """Leave a session to its board, and say how to find it again."""
    if session.id is None:
        session.stop()
        raise InputError(f"{device} keeps no sessions: each belongs to the host that started it", "leave out --detach")
    session.detach()
    data = {"session": session.id, "run": path(session.folder), "planned": session.planned}
    text = f"session {session.id} runs on {device}: `edgekit attach {device} {session.id}` watches it"
    report(data, lambda console: console.print(text, soft_wrap=True))


def report_session(session: Session) -> None:
    """State, times, memory, and where the run lies."""
    summary = summarize(session.records)
    memory = session.memory
    data = {
        "run": path(session.folder),
        "session": session.id,
        "state": session.ended_as,
        "steps": summary.steps,
        "planned": session.planned,
        "dropped": session.dropped,
        "checkpoint": None if session.checkpoint is None else path(session.checkpoint),
        "memory": None if memory is None else asdict(memory),
        "cache": None if session.cached is None else session.cached.model_dump(),
        "summary": asdict(summary),
    }

    def draw(console: Console) -> None:
        console.print(
            f"{session.ended_as} after {summary.steps} steps: loss {number(summary.first_loss, '.4f')} → "
            f"{number(summary.last_loss, '.4f')}, {number(summary.median_ms, '.2f')} ms a step (p10 "
            f"{number(summary.p10_ms, '.2f')}, p90 {number(summary.p90_ms, '.2f')})",
            soft_wrap=True,
        )
        parts = "" if memory is None else f"training {size(memory.training_bytes)}, parameters {size(memory.parameter_bytes)}, "
        console.print(
            f"memory: {parts}process {size(summary.peak_rss_bytes)}; "
            f"highest temperature {number(summary.max_temperature_c, '.1f', ' °C')}",
            soft_wrap=True,
        )
        if session.cached is not None:
            console.print(f"frozen prefix: {cache_text(session.cached)}", soft_wrap=True)
        console.print(f"run folder: {path(session.folder)}", soft_wrap=True)

    report(data, draw)
