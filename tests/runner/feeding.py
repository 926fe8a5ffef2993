"""A runner that streams, with raw messages, and the host that brings the shards."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from edgekit.protocol.messages import Window
from edgekit.protocol.status import Status
from edgekit.sessions.data import check_data
from edgekit.sessions.shards import Shards
from tests.runner.make_golden import SHARDS, START, STATUS
from tests.runner.process import Runner
from tests.runner.programs import Classifier, sample_data, write_data

SAMPLES, STEPS, AHEAD = 50, 3, 2
PROGRAM = Classifier().program()


class Feeding:
    """A runner that streams a training of 2 epochs, and the data set that it wants."""

    def __init__(self, runner: Runner, folder: Path, kind: str = "train", **keys: Any) -> None:
        inputs, targets = sample_data(SAMPLES)
        self.runner = runner
        self.folder = folder
        self.data = write_data(folder.parent / "data", inputs, targets)
        entry = "train_step" if kind == "train" else kind
        self.shards = Shards(check_data({"inputs": inputs, "targets": targets}, PROGRAM, entry), PROGRAM, entry)
        self.keys: dict[str, Any] = {"kind": kind} | keys
        if kind == "train":
            self.keys = {"epochs": 2, "shuffle": True, "seed": 5, "reset": True} | self.keys

    def start(self) -> dict[str, Any]:
        self.folder.mkdir(exist_ok=True)
        numbers = {"samples": SAMPLES, "steps": STEPS, "ahead": AHEAD}
        return self.runner.ask(START, **self.keys, stream=numbers | {"digest": self.shards.digest, "folder": str(self.folder)})

    def window(self) -> dict[str, Any]:
        return self.runner.ask(SHARDS)

    def build(self, number: int) -> bytes:
        return self.shards.build(Window.model_validate(self.window()), number)

    def place(self, number: int, shard: bytes, sent: bytes | None = None) -> dict[str, Any]:
        """Bring a shard that was ``sent`` as something else; the keys of its announcement."""
        (self.folder / str(number)).write_bytes(shard)
        sent = shard if sent is None else sent
        return {"number": number, "bytes": len(sent), "sha": hashlib.sha256(sent).digest()}

    def bring(self, number: int) -> dict[str, Any]:
        return self.runner.ask(SHARDS, **self.place(number, self.build(number)))

    def bring_all(self) -> None:
        window = self.window()
        while (number := window["wanted"]) < window["total"]:
            while window["until"] <= number:
                window = self.window()
            if number == window["total"] - 1:
                self.runner.ask(SHARDS, **self.place(number, self.build(number)))
                return
            window = self.bring(number)

    def refused(self, status: Status, number: int, shard: bytes, sent: bytes | None = None) -> str:
        """A shard that is not taken: its file is gone, it is still wanted, and nothing was trained on it."""
        before = self.runner.ask(STATUS)["step"]
        why = self.runner.fails(status, SHARDS, **self.place(number, shard, sent))
        assert not (self.folder / str(number)).exists()
        assert self.window()["wanted"] == number
        assert self.runner.ask(STATUS)["step"] == before
        return why

    def wait_until_it_waits(self) -> int:
        """The steps done then."""
        while (status := self.runner.ask(STATUS))["state"] == "running":
            time.sleep(0.001)
        assert status["state"] == "waiting", status
        return int(status["step"])
