from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edgekit.firmware.build import build

from tests.runner.make_golden import LOAD
from tests.runner.process import Runner
from tests.runner.programs import Classifier


@pytest.fixture(scope="session", params=["native", pytest.param("aarch64", marks=pytest.mark.slow)])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How a runner is started: this machine's, the one of EDGEKIT_RUNNER, or the aarch64 one emulated."""
    if request.param == "native":
        return (os.environ.get("EDGEKIT_RUNNER") or str(build("runner", "x86_64-linux")),)
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
    return (emulator, str(build("runner", "aarch64-linux")))


@pytest.fixture
def new_runner(command: tuple[str, ...]) -> Iterator[Callable[..., Runner]]:
    """Starts runners; at the end each must exit with 0, unless the test ended it itself."""
    made: list[Runner] = []

    def make(*options: str, before: Callable[[], None] | None = None) -> Runner:
        made.append(Runner(*command, *(options or ("--threads", "1")), before=before))
        return made[-1]

    yield make
    for runner in made:
        ended = runner.process.poll()
        code = runner.close() if ended is None else ended
        assert runner.process.stderr is not None
        log = runner.process.stderr.read().decode()
        assert code == 0, log


@pytest.fixture
def runner(new_runner: Callable[..., Runner]) -> Runner:
    return new_runner()


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.ekp"
    Classifier().program().save(path)
    return str(path)


@pytest.fixture
def loaded(runner: Runner, model: str) -> Runner:
    """A runner with the classifier."""
    runner.ask(LOAD, path=model)
    return runner
