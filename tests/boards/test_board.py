"""Board profiles: what comes with edgekit, the user's own, and files with mistakes."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgekit.board import all_boards, load_board, read_board
from edgekit.errors import InputError

GOOD = 'id = "mine"\nname = "Mine"\narchitecture = "aarch64"\nbackend = "cpu"\nlinks = ["ssh"]\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    (tmp_path / "boards").mkdir()
    return tmp_path / "boards"


@pytest.mark.usefixtures("config")
def test_every_board_of_edgekit_is_valid() -> None:
    known = {"local", "generic-x86-64", "generic-aarch64", "raspberry-pi-4b", "raspberry-pi-5", "jetson-orin-nano", "macbook-m1"}
    known |= {"virtual-pi-4", "virtual-m7", "generic-cortex-m7", "stm32f746-discovery"}
    boards = {board.id: board for board in all_boards()}
    assert set(boards) == known
    assert all(board.source for board in boards.values())


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("arm64", "aarch64")])
def test_local_is_this_machine(machine: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert load_board("local").architecture == architecture


def test_a_machine_without_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "sparc64")
    with pytest.raises(InputError, match="sparc64"):
        load_board("local")


def test_a_users_board_is_found_and_wins(config: Path) -> None:
    (config / "mine.toml").write_text(GOOD)
    assert load_board("mine").name == "Mine"
    (config / "raspberry-pi-5.toml").write_text(GOOD.replace('"mine"', '"raspberry-pi-5"') + "cores = 2\n")
    assert load_board("raspberry-pi-5").cores == 2


def test_an_unknown_board_names_the_known_ones(config: Path) -> None:
    with pytest.raises(InputError, match="raspberry-pi-4b") as caught:
        load_board("raspbery-pi")
    assert str(config) in caught.value.hint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + 'colour = "red"\n', "colour"),
        (GOOD + '[sensors]\nhumidity = "/x"\n', "sensors.humidity"),
        (GOOD + "cores = 0\n", "cores"),
        (GOOD + 'cores = "4"\n', "cores"),
        (GOOD + "memory = 1.5\n", "memory"),
        (GOOD.replace('"aarch64"', '"z80"'), "architecture"),
        (GOOD.replace('["ssh"]', '["pigeon"]'), "links"),
        (GOOD.replace('["ssh"]', "[]"), "links"),
        (GOOD.replace("backend", "#"), "backend"),
        (GOOD.replace('"mine"', '"other"'), "other.toml"),
        ("id = ", "TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file(text: str, named: str, config: Path) -> None:
    path = config / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_board(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


def test_only_known_sensors_are_named() -> None:
    assert set(load_board("raspberry-pi-4b").sensors.paths) == {"temperature", "clock", "throttled"}
    assert load_board("macbook-m1").sensors.paths == {}
