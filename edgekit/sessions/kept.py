"""The trainings that a board keeps: list, watch, resume, stop, fetch, remove (docs/session-host.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.errors import DeviceError, InputError
from edgekit.program import Program, load
from edgekit.protocol import Client, KeptSession
from edgekit.sessions.feed import KeptFeed, find_kept
from edgekit.sessions.session import RUNS, Plan, Session
from edgekit.telemetry import RUN, RunFolder, read_run

PROGRAM = "program.ekp"


class KeptSessions:
    """What one board keeps in its home folder. ``facts`` go into the run.json of a session that is watched from here first."""

    def __init__(self, client: Client, home: str | None, facts: dict[str, Any]) -> None:
        self._client = client
        self._home = home
        self._facts = facts

    def list(self) -> list[KeptSession]:
        """All of them, the newest last."""
        self._need_home()
        return self._client.sessions()

    def attach(self, session: str, run_dir: Path | str | None = None) -> Session:
        """Watch a session from its first record on, or from where the folder ends.

        Args:
            session: its id.
            run_dir: the run's folder, new or of this session; ``runs/<id>`` by default.

        Raises:
            DeviceError: the board keeps no such session.
            InputError: the folder holds another run.
            LinkError: the board is gone.
        """
        home = self._need_home()
        kept = find_kept(self._client, session)
        return self._watch(home, kept, Plan(kept.steps), run_dir)

    def resume(self, session: str, run_dir: Path | str | None = None) -> Session:
        """Go on with a session that was interrupted, stopped or failed, from its last checkpoint; arguments as for ``attach``.

        Raises: as attach does; DeviceError: it is done, or another one runs.
        """
        home = self._need_home()
        kept = find_kept(self._client, session)
        started = self._client.resume(session)
        return self._watch(home, kept, Plan(started.steps, samples=started.samples, dropped=started.dropped), run_dir)

    def stop(self, session: str | None = None) -> None:
        """Stop a session after the step under way, or the one that runs; what was trained is kept. The session may be resumed."""
        self._client.stop(session)

    def fetch(self, session: str, run_dir: Path | str | None = None) -> Session:
        """Bring home what there is of a session: records, program, parameters. One that runs goes on."""
        watched = self.attach(session, run_dir)
        watched.catch_up()
        return watched

    def remove(self, session: str) -> None:
        """Delete what the board keeps of a session that is over."""
        self._client.remove(session)

    def _need_home(self) -> str:
        if self._home is None:
            name = self._client.link.name
            raise DeviceError(f"{name} keeps no sessions: they end with the connection", "its runs are in the folder runs/ here")
        return self._home

    def _watch(self, home: str, kept: KeptSession, plan: Plan, run_dir: Path | str | None) -> Session:
        path = (Path(run_dir) if run_dir is not None else RUNS / kept.id).absolute()
        if (path / RUN).exists() and (other := read_run(path).facts.get("session")) != kept.id:
            raise InputError(f"{path} holds another run ({other or 'of no session'})", "choose another --run-dir")
        folder = RunFolder(path, {"session": kept.id, "ended": None, "result": None}, again=True)
        program = self._program(kept, path / PROGRAM)
        if "program" not in folder.facts:
            folder.note(**self._facts, program={"sha256": program.sha256.hex(), "file": PROGRAM}, planned=plan.steps)
        return Session(KeptFeed(self._client, home, kept.id), program, plan, folder)

    def _program(self, kept: KeptSession, local: Path) -> Program:
        if not local.exists():
            self._client.get_file(kept.program, local)
        return load(local)
