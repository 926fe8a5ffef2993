"""A kept training's cache of its frozen prefix: it survives the host, and is used only where it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.program import Program
from tests.host.home import Home, session_of, wait_for
from tests.runner.make_golden import RESUME, START, STATUS
from tests.runner.programs import prefixed, sample_data, write_data

SAMPLES = 24
HEAD, ROW = 64, 64  #: bytes of the file's head, and of a row: 32 of its head and 8 floats


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_data(tmp_path / "data", *sample_data(SAMPLES))


def kept(tmp_path: Path, data: str, program: Program, **more: Any) -> dict[str, Any]:
    program.save(tmp_path / "kept.ekp")
    base = {"kind": "train", "session": "s", "program": str(tmp_path / "kept.ekp"), "data": data, "shuffle": True, "seed": 1}
    return base | {"epochs": 1000, "every": 500, "cache": {"storage": "float32"}} | more


def interrupted(home: Home, start: dict[str, Any]) -> Path:
    """Begin a training, and kill the host once every sample has a row; the cache's file."""
    runner = home.attach()
    runner.ask(START, **start)
    wait_for(lambda: runner.ask(STATUS)["cache"]["rows"] == SAMPLES)
    home.kill()
    return home.folder("s") / "prefix"


def resumed(home: Home) -> tuple[bytes, dict[str, Any]]:
    runner = home.attach()
    runner.ask(RESUME, session="s")
    cache = runner.ask(STATUS)["cache"]
    wait_for(lambda: session_of(runner, "s")["state"] not in ("running", "waiting"))
    assert session_of(runner, "s")["state"] == "done"
    return (home.folder("s") / "checkpoint.ekc").read_bytes()[128:], cache


@pytest.fixture
def undisturbed(home: Home, tmp_path: Path, data: str) -> bytes:
    """The final state without a cache, and without trouble."""
    runner = home.attach()
    runner.ask(START, **{k: v for k, v in kept(tmp_path, data, prefixed()).items() if k != "cache"} | {"session": "plain"})
    wait_for(lambda: session_of(runner, "plain")["state"] == "done")
    return (home.folder("plain") / "checkpoint.ekc").read_bytes()[128:]


@pytest.mark.parametrize("damage", ["none", "cut", "a payload", "a head", "zeros", "all of it", "removed"])
def test_a_file_of_before_is_used_as_far_as_it_is_sound(
    home: Home, tmp_path: Path, data: str, undisturbed: bytes, damage: str
) -> None:
    file = interrupted(home, kept(tmp_path, data, prefixed()))
    whole = bytearray(file.read_bytes())
    assert len(whole) == HEAD + SAMPLES * ROW
    content = {
        "none": whole,
        "cut": whole[: HEAD + 7 * ROW + 9],
        "a payload": whole[: HEAD + 3 * ROW + 40] + b"!" + whole[HEAD + 3 * ROW + 41 :],
        "a head": whole[: HEAD + 3 * ROW] + b"!" + whole[HEAD + 3 * ROW + 1 :],
        "zeros": whole[:HEAD] + bytes(SAMPLES * ROW),
        "all of it": b"!" * len(whole),
        "removed": None,
    }[damage]
    expected = {"none": SAMPLES, "cut": 7, "a payload": SAMPLES - 1, "a head": 3}.get(damage, 0)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    state, cache = resumed(home)
    assert state == undisturbed
    assert expected <= cache["rows"] <= SAMPLES
    if damage == "none":
        assert cache["bytes"] == len(whole), "nothing was made anew"
