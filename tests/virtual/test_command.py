"""``edgekit virtual`` without a board: reports, exit codes, what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit import devices
from edgekit.cli.main import run

Captured = pytest.CaptureFixture[str]


@pytest.mark.usefixtures("config")
def test_there_is_none_yet(capsys: Captured) -> None:
    assert run(["virtual", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["virtual", "list"]) == 0
    assert "edgekit virtual start" in capsys.readouterr().out


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("words", [["stop"], ["stop", "--kill"], ["stop", "pi-7", "--delete"]])
def test_a_board_that_is_not_there_cannot_be_stopped(words: list[str], capsys: Captured) -> None:
    assert run(["virtual", *words, "--json"]) == 2
    assert "edgekit virtual start" in json.loads(capsys.readouterr().out)["error"]["hint"]


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("words", [["--name", "A"], ["--icount", "--cpus", "2"], ["--memory", "1"], ["--port", "0"], ["pi-9000"]])
def test_a_wrong_option_is_exit_code_2(words: list[str]) -> None:
    assert run(["virtual", "start", *words]) == 2


@pytest.mark.usefixtures("config")
def test_a_missing_program_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["virtual", "start", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "qemu-system-aarch64" in error["message"]
    assert "apt install qemu-system-arm" in error["hint"]


@pytest.mark.usefixtures("config")
def test_the_name_of_another_device_is_not_taken(capsys: Captured) -> None:
    devices.add(devices.KnownDevice(name="kitchen", address="ssh://pi@192.0.2.1"))
    assert run(["virtual", "start", "--name", "kitchen"]) == 2
    assert "192.0.2.1" in capsys.readouterr().err
