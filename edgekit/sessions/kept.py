"""The trainings that a board keeps: list, watch, resume, stop, fetch, remove (docs/session-host.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.errors import DeviceError, InputError
from edgekit.program import Program, load
from edgekit.protocol import Client, KeptSession, Started
from edgekit.protocol.messages import LIVE
from edgekit.sessions.data import Dataset, check_data
from edgekit.sessions.feed import KeptFeed, find_kept
from edgekit.sessions.feeder import Feeder
from edgekit.sessions.session import RUNS, Plan, Session
from edgekit.sessions.shards import Shards, another
from edgekit.telemetry import RUN, RunFolder, read_run

PROGRAM = "program.ekp"


class KeptSessions:
    """What one board keeps in its home folder.

    ``facts`` go into the run.json of a session that is watched from here first; ``start`` does what starts one, and makes room
    where the board's disk is full.
    """

    def __init__(
        self,
        client: Client,
        home: str | None,
        facts: dict[str, Any],
        start: Callable[[Callable[[], Started]], Started] = lambda do: do(),
    ) -> None:
        self._client = client
        self._start = start
        self._home = home
        self._facts = facts

    def list(self) -> list[KeptSession]:
        """All of them, the newest last."""
        self._need_home()
        return self._client.sessions()

    def attach(self, session: str, run_dir: Path | str | None = None, data: Dataset | None = None) -> Session:
        """Watch a session from its first record on, or from where the folder ends. Leave the loop early and the board goes on.

        Args:
            session: its id.
            run_dir: the run's folder, new or of this session; ``runs/<id>`` by default.
            data: of a streaming session: its data set, which is brought from here then. Without it the session is only watched.

        Raises:
            DataError: ``data`` is not the session's.
            DeviceError: the board keeps no such session.
            InputError: the folder holds another run; the session's data is on the board.
            LinkError: the board is gone.
        """
        home = self._need_home()
        kept = find_kept(self._client, session)
        feeder = self._feeder(kept, _folder(kept, run_dir), data)
        watched = self._watch(home, kept, Plan(kept.steps), _folder(kept, run_dir), feeder if kept.state in LIVE else None)
        watched.watched = True
        return watched

    def resume(self, session: str, run_dir: Path | str | None = None, data: Dataset | None = None) -> Session:
        """Go on with a session that was interrupted, stopped or failed, from its last checkpoint; arguments as for ``attach``.

        Raises: as attach does; DeviceError: it is done, or another one runs; InputError: a streaming session needs its data.
        """
        home = self._need_home()
        kept = find_kept(self._client, session)
        if kept.stream is not None and data is None and kept.state != "done":
            raise InputError(f"the data of the session {session} is streamed: it is not on the board", "give it: --data DIR")
        feeder = self._feeder(kept, _folder(kept, run_dir), data)
        started = self._start(lambda: self._client.resume(session))
        plan = Plan(started.steps, samples=started.samples, dropped=started.dropped)
        return self._watch(home, kept, plan, _folder(kept, run_dir), feeder)

    def stop(self, session: str | None = None) -> bool:
        """Stop a session after the step under way, or the one that runs; what was trained is kept. The session may be resumed.

        Returns: whether anything ran.
        """
        runs = self._client.status().state in LIVE
        self._client.stop(session)
        return runs

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
            raise DeviceError(
                f"{name} keeps no sessions: each belongs to the host that started it",
                f"its runs are in the folder runs/ here; `edgekit stop {name}` stops what runs",
            )
        return self._home

    def _watch(self, home: str, kept: KeptSession, plan: Plan, path: Path, feeder: Feeder | None) -> Session:
        if (path / RUN).exists() and (other := read_run(path).facts.get("session")) != kept.id:
            raise InputError(f"{path} holds another run ({other or 'of no session'})", "choose another --run-dir")
        folder = RunFolder(path, {"session": kept.id, "ended": None, "result": None}, again=True)
        program = self._program(kept, path / PROGRAM)
        if "program" not in folder.facts:
            folder.note(**self._facts, program={"sha256": program.sha256.hex(), "file": PROGRAM}, planned=plan.steps)
        return Session(KeptFeed(self._client, home, kept.id), program, plan, folder, feeder)

    def _feeder(self, kept: KeptSession, path: Path, data: Dataset | None) -> Feeder | None:
        """What brings ``data``, which must be the session's."""
        if data is None:
            return None
        if kept.stream is None:
            raise InputError(f"the data of the session {kept.id} is on the board", "leave out --data")
        with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            there = (path / PROGRAM).exists()
            program = self._program(kept, (path if there else Path(scratch)) / PROGRAM)
            shards = Shards(check_data(data, program, "train_step"), program, "train_step")
        if shards.digest != kept.stream:
            raise another(kept.stream, shards.digest)
        return Feeder(self._client, shards, kept.id)

    def _program(self, kept: KeptSession, local: Path) -> Program:
        if not local.exists():
            self._client.get_file(kept.program, local)
        return load(local)


def _folder(kept: KeptSession, run_dir: Path | str | None) -> Path:
    """The run's folder of a session that is watched from here."""
    return (Path(run_dir) if run_dir is not None else RUNS / kept.id).absolute()
