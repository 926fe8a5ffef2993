"""What the runner's process takes at its peak, next to what it says that its program needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.graph.builder import Builder
from edgekit.graph.model import Binding, Model, Trainable
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.loss import CrossEntropy
from edgekit.graph.value import DType
from edgekit.program import Program, write_program
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.runner.make_golden import LOAD, SAVE
from tests.runner.process import Runner
from tests.runner.programs import CLASSES, write_data

MB = 1 << 20
WIDTH, FROZEN, TRAINED = 640, 8, 8  #: each layer's weight is 1.56 MB
ITSELF = 2 * MB  #: the executable, its stacks, the records
FOLIOS = 4 * MB  #: where the page cache has large folios: the one with the tables, the one with the head's weights


def deep_program() -> Program:
    """A stack of products, the later half trained."""
    rng = np.random.default_rng(0)
    build = Builder()
    x = value = build.input("x", (1, WIDTH))
    t = build.input("t", (1,), DType.I32)
    for i in range(FROZEN):
        value = build(Linear(), value, build.constant(f"f{i}", rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 26))
    states = []
    for i in range(TRAINED):
        states.append(build.state(f"w{i}", rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 26))
        value = build(Linear(), value, states[-1])
    value = build(Linear(), value, build.constant("head", rng.standard_normal((WIDTH, CLASSES)).astype(np.float32) / 26))
    loss = build(CrossEntropy(), value, t, name="loss")
    build.graph.outputs += [value, loss]
    model = Model(build.graph, [x], t, [value], loss, {}, [], classes=CLASSES, ignore_index=None)
    trainables = [Trainable(v, Binding(v.name, (v.name,), ())) for v in states]
    return write_program(make_plan(model, trainables, SGD(0.01)), batch=1)


def peak(runner: Runner) -> int:
    """VmHWM, bytes."""
    status = Path(f"/proc/{runner.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.fixture
def native(command: tuple[str, ...]) -> None:
    if len(command) > 1:
        pytest.skip("an emulator's own memory counts in")


@pytest.mark.usefixtures("native")
def test_the_program_file_is_not_in_memory_a_second_time(new_runner: Callable[..., Runner], tmp_path: Path) -> None:
    program = deep_program()
    program.save(tmp_path / "m.ekp")
    data = write_data(tmp_path / "data", np.zeros((1, WIDTH), np.float32), np.zeros(1, np.int64))
    runner = new_runner("--threads", "1")
    loaded = runner.ask(LOAD, path=str(tmp_path / "m.ekp"))
    needed = sum(loaded[part] for part in ("arena", "state", "scratch", "prepared"))
    weight = WIDTH * WIDTH * 4
    assert (loaded["state"], loaded["constants"] // weight) == (TRAINED * weight, FROZEN)
    assert loaded["prepared"] < 1.2 * loaded["constants"]  # packed once, for all entries
    runner.session("train", data, epochs=2)
    assert peak(runner) < needed + ITSELF + FOLIOS

    runner.ask(SAVE, path=str(tmp_path / "c.ekc"))
    runner.session("train", data, epochs=2, reset=True)
    runner.session("train", data, epochs=2, state=str(tmp_path / "c.ekc"))
    assert peak(runner) < needed + ITSELF + 2 * FOLIOS + MB  # and the checkpoint's
