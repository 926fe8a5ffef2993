"""A connected board: what a user calls."""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.board import GENERAL, Board, load_board
from edgekit.devices import find
from edgekit.errors import BusyError, DeviceError, EdgekitError, InputError, IntegrityError, LinkError, StorageError
from edgekit.links import Link, open_link
from edgekit.links.link import StoringLink
from edgekit.links.progress import Progress, silent
from edgekit.program import Architecture, Backend, Program
from edgekit.protocol import PROTOCOL, Client, Info, Started, StartRequest
from edgekit.protocol.faults import device_error
from edgekit.protocol.messages import LIVE, Loaded, Stream
from edgekit.sessions.bench import Bench, Limits, make_bench, random_data
from edgekit.sessions.caching import FILE, Caching, choose_cache
from edgekit.sessions.checkpoint import read_checkpoint
from edgekit.sessions.data import CheckedData, Dataset, OnBoard, check_data
from edgekit.sessions.feed import Feed, KeptFeed, LiveFeed
from edgekit.sessions.feeder import Feeder
from edgekit.sessions.kept import PROGRAM, KeptSessions
from edgekit.sessions.memory import Memory, memory_of
from edgekit.sessions.room import Room
from edgekit.sessions.session import FINAL, RUNS, Pause, Plan, Session, now, stop_and_wait
from edgekit.sessions.streaming import Streaming, choose
from edgekit.telemetry import RunFolder, Summary, clean_name, new_run_path, provenance

PERIODIC = "checkpoint.ekc"
_SOON = 0.002  #: seconds before the first look whether a short session is over
_ARCHITECTURES = {Architecture.X86_64: "x86_64", Architecture.AARCH64: "aarch64", Architecture.ARMV7EM: "armv7e-m"}
_BACKENDS = {Backend.CPU: "cpu", Backend.CORTEX_M: "cortex-m", Backend.TORCH: "torch"}

log = logging.getLogger("edgekit")

T = TypeVar("T")


@dataclass(frozen=True)
class Metrics:
    """Over a whole data set: mean loss, share of right answers; None where the program has no loss, or no classes."""

    loss: float | None
    accuracy: float | None
    samples: int


def connect(
    address: str,
    *,
    threads: int | None = None,
    isa: str | None = None,
    board: str | None = None,
    budget: int | None = None,
    progress: Progress = silent,
) -> Device:
    """Connect to a board; use the result in a ``with`` statement.

    Args:
        address: "local" is this machine, "ssh://user@host" a board with a runner (`edgekit flash`).
        threads: of the runner; all cores by default.
        isa: the kernels' instruction set ("avx2", "neon", …); the best one by default.
        board: id of the profile that says where temperature and clock are read; by default the named device's, or a general one.
        budget: the most bytes that edgekit may take of the board's disk; by default the named device's, or a share of the
            disk (edgekit.sessions.room).
        progress: told while big files move.

    Raises:
        InputError: the address or the board is unknown.
        LinkError: the board cannot be reached, or no runner answers.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, it must be 1 or more")
    known = find(address)
    board = board or (known.board if known else None) or ("local" if address == "local" else None)
    profile = None if board is None else load_board(board)
    budget = budget if budget is not None or known is None else known.budget_bytes

    def reopen() -> Link:
        return open_link(address, threads=threads, isa=isa, progress=progress)

    link = reopen()
    try:
        return Device(link, profile, None if address == "local" else reopen, progress, budget)
    except BaseException:
        link.close()
        raise


class Device:
    """A board with a running runner.

    Where the runner has a home (a session host, docs/session-host.md) trainings are kept there and outlive the connection,
    which is opened again by itself when it breaks.

    It remembers what each program was trained to here: training goes on from there, and evaluation and prediction use it,
    whatever other programs ran in between.
    """

    def __init__(
        self,
        link: Link,
        board: Board | None = None,
        reopen: Callable[[], Link] | None = None,
        progress: Progress = silent,
        budget: int | None = None,
    ) -> None:
        self.client = Client(link, reopen)
        self.info: Info = self.client.info()
        if self.info.protocol != PROTOCOL:
            found = f"{link.name}: the runner speaks protocol {self.info.protocol}, edgekit {PROTOCOL}"
            local = "unset EDGEKIT_RUNNER, or build that runner anew"
            raise LinkError(found, local if reopen is None else f"`edgekit flash {link.name}` brings the runner that fits")
        self.client.instance = self.info.instance
        self._progress = progress
        self.board = board or load_board(GENERAL.get(self.info.architecture, "generic-aarch64"))
        self.client.sensors(self.board.sensors.paths)
        #: the disk of a board that stores what it is sent; None: nothing is stored
        self.room = Room(self.client, budget) if self.info.home is not None and isinstance(link, StoringLink) else None
        facts = {"board": self._board_facts(), **provenance()}
        self.sessions = KeptSessions(self.client, self.info.home, facts, lambda start: self._using_disk(start, 0))
        self._scratch = tempfile.TemporaryDirectory(prefix="edgekit-")
        self._folder = Path(self._scratch.name)
        self._loaded: bytes | None = None  #: the program on the board
        self._memory: Memory | None = None  #: … and what it takes there
        self._trained: dict[bytes, str] = {}  #: by program: the checkpoint, on the board, of its last training here
        self._copies: dict[str, Path] = {}  #: by checkpoint on the board: the same here
        self._session: Session | None = None
        self._closed = False

    def __enter__(self) -> Device:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Remove temporary files; stop what runs and end the runner, but where the board keeps the session, which goes on.

        Again and again is fine.
        """
        if self._closed:
            return
        self._closed = True
        session = self._session
        try:
            if session is not None and session.running:
                with contextlib.suppress(EdgekitError):  # whoever iterates the session is told
                    session.stop() if session.id is None else session.detach()
        finally:
            self.client.link.close()
            self._scratch.cleanup()

    def train(
        self,
        program: Program,
        dataset: Dataset | OnBoard,
        epochs: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        *,
        steps: int | None = None,
        checkpoint_every: int | None = None,
        resume: Path | str | None = None,
        reset: bool = False,
        stream: bool | None = None,
        spool: int | None = None,
        cache: Caching = "auto",
        cache_budget: int | None = None,
        run_dir: Path | str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Session:
        """Start training; returns at once.

        Args:
            dataset: a folder of .npy files, arrays by name (edgekit.sessions.data), or OnBoard: a folder that lies on the board.
            epochs: times through the data; a rest that fills no batch is left out of each.
            seed: of the order of the samples and of dropout, below 2**32.
            steps: stop after that many.
            checkpoint_every: steps from one checkpoint to the next; there is one at the end in any case. A board that keeps the
                session makes one every 30 s by itself.
            resume: a checkpoint of this program, or a run's folder, to go on from.
            reset: start from the program's own parameters, not from what this board trained before.
            stream: True: bring the data in shards while the board trains, and keep only a few there; they move while the session
                is iterated. False: never. By default where the data set does not fit on the board.
            spool: bytes of shards on the board at a time.
            cache: whether the board keeps what the frozen part before the first update makes of each sample, so that later epochs
                run only the rest: "float32" changes no number, "float16" takes half the room, "int8" a quarter, "off" is
                without. "auto" is float32 where there is more than one epoch and room.
            cache_budget: the most bytes of the board's disk for that; by default a quarter of what is free.
            run_dir: the run's folder; by default a new one in ``runs/``.
            options: further facts for its run.json.

        Raises:
            InputError: an option is out of range; the program is for another board.
            DataError: the data does not fit the program.
            IntegrityError: the checkpoint is damaged or another program's.
            StorageError: the run's folder cannot be written.
            DeviceError, LinkError: the board refuses, or is gone.
        """
        for name, value in {"epochs": epochs, "steps": steps, "checkpoint_every": checkpoint_every}.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, it must be 1 or more")
        if not 0 <= seed < 2**32:
            raise InputError(f"seed is {seed}, it must lie in 0 … 2**32 - 1")
        if resume is not None and reset:
            raise InputError("resume and reset exclude each other")
        self._check_program(program, "train_step")
        checkpoint = None if resume is None else _checkpoint(Path(resume), program)
        data = dataset if isinstance(dataset, OnBoard) else check_data(dataset, program, "train_step")
        path, kept = self._new_run(program, run_dir)
        facts = {
            "dataset": _place(dataset),
            "epochs": epochs,
            "shuffle": shuffle,
            "seed": seed,
            "steps": steps,
            "checkpoint_every": checkpoint_every,
            "resume": None if checkpoint is None else str(checkpoint),
            "reset": reset,
            "stream": None,
            "cache": cache,
            **(options or {}),
        }
        folder = RunFolder(path, {**self._facts(program), "session": kept, "options": facts})
        try:
            program.save(path / PROGRAM)
            file = self._put(path / PROGRAM)
            memory = self._load(program, file)
            streaming = self._choose(data, program, "train_step", stream, spool)
            file_here = None if kept else path / FILE
            streamed = streaming is not None
            cached = choose_cache(self.client, program, cache, cache_budget, epochs=epochs, streamed=streamed, file=file_here)
            where = self._data(data, streaming, path / "data", kept)
            periodic = None if checkpoint_every is None or kept else self.client.board_path(path / PERIODIC)
            request = StartRequest(
                kind="train",
                session=kept,
                program=file if kept else None,
                **where,
                cache=cached,
                epochs=epochs,
                shuffle=shuffle,
                seed=seed,
                steps=steps,
                checkpoint=periodic,
                every=checkpoint_every,
                **({"resume": self._put(checkpoint)} if checkpoint else self._origin(program, reset=reset)),
            )
            if kept:
                self._put(path / PROGRAM)  # the data took its time: another host may have cleared up meanwhile
            started = self._start(request, 2 * program.header.state_bytes)
        except BaseException as error:
            with contextlib.suppress(EdgekitError):
                folder.note(ended=now(), result={"state": "refused", "steps": 0, "error": str(error)})
            folder.close()
            raise
        if streaming is not None:
            folder.note(options={**facts, "stream": asdict(streaming.spool)})
        folder.note(memory=asdict(memory), samples=started.samples, dropped=started.dropped, planned=started.steps)
        feed = self._feed(kept)
        cursor = started.next if kept is None else 0
        plan = Plan(started.steps, cursor, started.samples, started.dropped, memory)
        feeder = None if streaming is None else Feeder(self.client, streaming.shards, kept)
        self._session = Session(feed, program, plan, folder, feeder)
        return self._session

    def evaluate(
        self,
        program: Program,
        dataset: Dataset,
        *,
        checkpoint: Path | str | None = None,
        stream: bool | None = None,
        spool: int | None = None,
    ) -> Metrics:
        """Loss and accuracy over a data set, with what was trained here, or with the parameters in ``checkpoint``.

        A training session under way is waited for. ``stream`` and ``spool`` are as for ``train``.

        Raises: as train does.
        """
        file, _ = self._prepare(program, "evaluate")
        data = check_data(dataset, program, "evaluate")
        streaming = self._choose(data, program, "evaluate", stream, spool)
        where = self._data(data, streaming, self._folder / "evaluate", None)
        request = StartRequest(kind="evaluate", program=file, **where, **self._origin(program, checkpoint))
        feeder = None if streaming is None else Feeder(self.client, streaming.shards, None, self._progress)
        reply = self.client.metrics(self._run(request, feeder))
        accuracy = reply.correct / reply.counted if reply.counted else None
        return Metrics(reply.loss, accuracy, reply.samples)

    def predict(self, program: Program, inputs: Any, *, checkpoint: Path | str | None = None) -> npt.NDArray[Any]:
        """The model's first output for every sample; ``inputs`` is a data set without targets, or the one array of inputs.

        Raises: as train does.
        """
        file, _ = self._prepare(program, "predict")
        dataset = inputs if isinstance(inputs, (Mapping, str, Path)) else {"inputs": inputs}
        data = self._put(check_data(dataset, program, "predict").place(self._folder / "predict"))
        out = self._folder / "predictions.npy"
        remote = self.client.board_path(out)
        self._run(StartRequest(kind="predict", program=file, data=data, out=remote, **self._origin(program, checkpoint)))
        self.client.get_file(remote, out)
        result: npt.NDArray[Any] = np.load(out)
        return result

    def bench(self, program: Program, steps: int = 20, profile: bool = False) -> Bench:
        """Time training steps on made-up data, from the program's own parameters; what was trained here stays.

        Args:
            steps: to time, after one that warms up.
            profile: time each op too, which slows the steps a little, and measure the board's limits.

        Raises: as train does.
        """
        session, summary, memory = self._bench(program, steps, profile)
        if not profile:
            return make_bench(program, session.records, summary, memory)
        times, measured = self.client.profile(), self.client.limits()
        limits = Limits(measured.flops, tuple(measured.bandwidth))
        return make_bench(program, session.records, summary, memory, times, limits)

    def op_times(self, program: Program, steps: int) -> list[float]:
        """What each op of ``train_step`` takes, ns, the mean of these steps and one more; as ``bench`` runs them.

        Raises: as train does.
        """
        self._bench(program, steps, profile=True)
        return [ns / runs for _, runs, ns in self.client.profile() if runs]

    def _bench(self, program: Program, steps: int, profile: bool) -> tuple[Session, Summary, Memory]:
        if steps < 1:
            raise InputError(f"steps is {steps}, it must be 1 or more")
        file, memory = self._prepare(program, "train_step")
        data = self._put(check_data(random_data(program), program, "train_step").place(self._folder / "bench"))
        folder = RunFolder(new_run_path(self._folder, "bench"), {})
        count = steps + 1

        def request(count: int, profile: bool) -> StartRequest:
            return StartRequest(
                kind="train",
                program=file,
                data=data,
                epochs=count,
                shuffle=False,
                seed=0,
                profile=profile,
                reset=True,
                steps=count,
            )

        if profile:
            self._run(request(1, False))  # the first step touches its memory for the first time, which is no op's own cost
        plan = Plan(count, self.client.start(request(count, profile)).next, memory=memory)
        session = Session(LiveFeed(self.client), program, plan, folder)
        return session, session.result().summary, memory

    def _check_program(self, program: Program, entry: str) -> None:
        """Refuse a program that this board cannot run, before anything is sent."""
        if self._closed:
            raise LinkError(f"the connection to {self.client.link.name} is closed", "connect again")
        wanted = _ARCHITECTURES.get(Architecture(program.header.architecture), self.info.architecture)
        backend = _BACKENDS[Backend(program.header.backend)]
        if (wanted, backend) != (self.info.architecture, self.info.backend):
            raise InputError(
                f"the program is for {wanted} and the {backend} backend, the board {self.client.link.name} has "
                f"{self.info.architecture} and {self.info.backend}",
                "compile it for this board: `edgekit compile --board ID`; `edgekit boards` lists them",
            )
        if entry not in program.entries:
            raise InputError(f"the program has no entry {entry!r}, only {', '.join(program.entries)}")

    def _prepare(self, program: Program, entry: str) -> tuple[str, Memory]:
        """The program's path on the board, where it is loaded; a start names it again: another host may load another."""
        self._check_program(program, entry)
        local = self._folder / f"{program.sha256.hex()[:16]}.ekp"
        if not local.exists():
            program.save(local)
        file = self._put(local)
        return file, self._load(program, file)

    def _load(self, program: Program, file: str) -> Memory:
        """Make ``program`` the loaded one, once the session under way is over: the board runs one at a time."""
        self._settle()
        kept = self.info.home is not None  # others may have loaded another one meanwhile
        if self._loaded == program.sha256 and self._memory is not None and not kept:
            return self._memory
        loaded = self._load_now(file)
        if loaded.sha != program.sha256:
            found = f"{self.client.link.name} loaded another program than the one sent"
            raise IntegrityError(found, "was the file replaced meanwhile?")
        self._loaded, self._memory = program.sha256, memory_of(program, loaded)
        return self._memory

    def _load_now(self, file: str) -> Loaded:
        """A board that keeps no session has one host at a time: what waits there for data was left by one that is gone."""
        try:
            return self.client.load(file)
        except BusyError:
            if self.info.home is not None or self.client.status().state != "waiting":
                raise
        log.warning("%s: a session waited for a host that is gone, and was stopped", self.client.link.name)
        stop_and_wait(self.client)
        return self.client.load(file)

    def _settle(self) -> None:
        """Wait for the training session under way, if any, and remember where it left its result."""
        session = self._session
        if session is None:
            return
        try:
            if session.running:
                session.result()
        finally:
            self._session = None
            if session.board_checkpoint is not None:
                self._trained[session.program.sha256] = session.board_checkpoint
                if session.checkpoint is not None:
                    self._copies[session.board_checkpoint] = session.checkpoint

    def _origin(self, program: Program, checkpoint: Path | str | None = None, *, reset: bool = False) -> dict[str, Any]:
        """The keys of a start that say where its parameters come from."""
        if checkpoint is not None:
            return {"state": self._put(_checkpoint(Path(checkpoint), program))}
        trained = self._trained.get(program.sha256)
        return {"reset": True} if trained is None or reset else {"state": trained}

    def _choose(
        self, data: CheckedData | OnBoard, program: Program, entry: str, stream: bool | None, spool: int | None
    ) -> Streaming | None:
        """How a data set is brought in shards; None: it goes to the board as a whole, or is there."""
        if isinstance(data, OnBoard):
            if stream:
                raise InputError(f"{data} lies on the board: there is nothing to stream", "leave out --stream")
            return None
        return choose(self.client, self.room, data, program, entry, stream, spool)

    def _data(self, data: CheckedData | OnBoard, streaming: Streaming | None, scratch: Path, kept: str | None) -> dict[str, Any]:
        """The keys of a start that say where its data is. It is sent, unless it comes as shards."""
        if isinstance(data, OnBoard):
            return {"data": self.client.user_path(data.path)}
        if streaming is None:
            return {"data": self._put(data.place(scratch))}
        folder = None if kept else self.client.board_path(self._folder / "shard").rpartition("/")[0]
        shards, spool = streaming.shards, streaming.spool
        return {
            "stream": Stream(samples=shards.samples, steps=spool.steps, ahead=spool.ahead, digest=shards.digest, folder=folder)
        }

    def _run(self, request: StartRequest, feeder: Feeder | None = None) -> int:
        """Run a session without records to its end; its number on the board."""
        number = self._start(request).id
        pause = Pause(_SOON)
        try:
            while (status := self.client.status()).state in LIVE and status.id == number:
                if feeder is None or not feeder.advance(status.step, status.state == "waiting"):
                    pause.wait()
        except BaseException:
            with contextlib.suppress(EdgekitError):
                if self.client.status().id == number:
                    stop_and_wait(self.client)
            raise
        name = self.client.link.name
        if status.id != number:
            raise BusyError(f"{name}: another host started a session before the end of this one was seen", "try again")
        if status.state == "failed":
            raise device_error(status.rc, status.why, name)
        if status.state != "done":
            raise DeviceError(f"{name}: the session was stopped before its end", "by another host? try again")
        return number

    def _start(self, request: StartRequest, bytes_: int = 0) -> Started:
        """Start what takes so many bytes of the board's disk. Parameters that the board has not got any more are sent again."""
        try:
            return self._using_disk(lambda: self.client.start(request), bytes_)
        except StorageError:
            copy = self._copies.get(request.state or "")
            if copy is None:
                raise
        again = request.but(state=self._put(copy))
        return self._using_disk(lambda: self.client.start(again), bytes_)

    def _using_disk(self, do: Callable[[], T], bytes_: int) -> T:
        return do() if self.room is None else self.room.using(do, bytes_)

    def _put(self, path: Path) -> str:
        return self.client.put_file(path) if self.room is None else self.room.put(path)

    def _new_run(self, program: Program, run_dir: Path | str | None) -> tuple[Path, str | None]:
        """The folder of a new run, and what a board that keeps sessions calls it: the same name wherever we may choose both."""
        path = Path(run_dir) if run_dir is not None else new_run_path(RUNS, str(program.metadata.get("model", "train")))
        path = path.absolute()  # the process may change its folder meanwhile
        if self.info.home is None:
            return path, None
        name = f"{clean_name(path.name)[:56]}-{secrets.token_hex(3)}"  # two hosts may start at the same second
        return (path if run_dir is not None else path.with_name(name)), name

    def _feed(self, kept: str | None) -> Feed:
        if kept is None or self.info.home is None:
            return LiveFeed(self.client)
        return KeptFeed(self.client, self.info.home, kept)

    def _board_facts(self) -> dict[str, Any]:
        return {"profile": self.board.id, "address": self.client.link.name, **self.info.model_dump()}

    def _facts(self, program: Program) -> dict[str, Any]:
        """What a run of the program here should note."""
        return {
            "program": {"sha256": program.sha256.hex(), "model": program.metadata.get("model"), "file": PROGRAM},
            "model_digests": program.metadata.get("digests", {}),
            "update": program.metadata.get("update"),
            "optimizer": program.metadata.get("optimizer"),
            "board": self._board_facts(),
            "checkpoint": FINAL,
            **provenance(),
            "started": now(),
            "ended": None,
            "result": None,
        }


def _place(dataset: Dataset | OnBoard) -> str | None:
    """Where a data set lies; None where it is in memory."""
    if isinstance(dataset, (Mapping, OnBoard)):
        return None if isinstance(dataset, Mapping) else dataset.path
    return str(Path(dataset).absolute())


def _checkpoint(path: Path, program: Program) -> Path:
    """The checkpoint of a path: itself, or a run folder's latest."""
    if path.is_dir():
        found = [path / name for name in (FINAL, PERIODIC) if (path / name).exists()]
        if not found:
            raise InputError(f"{path} holds no checkpoint", f"a run's folder has {FINAL} at its end, {PERIODIC} before")
        path = found[0]
    read_checkpoint(path).check(program, str(path))
    return path
