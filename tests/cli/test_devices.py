"""``edgekit devices``: names are given, listed and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.devices import find
from tests.support.command import Run, document


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))


def test_a_name_is_given_changed_and_taken_back(edgekit: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    code, out, _ = edgekit("devices", "add", "desk", "ssh://pi@192.0.2.1", "--identity", str(key), "--json")
    assert (code, document(out)["replaced"]) == (0, False)
    code, out, _ = edgekit(
        "devices", "add", "desk", "ssh://pi@192.0.2.2", "--board", "raspberry-pi-5", "--budget", "8 GiB", "--json"
    )
    assert (code, document(out)["replaced"]) == (0, True)
    known = find("desk")
    assert known is not None
    assert known.budget_bytes == 8 << 30
    code, out, _ = edgekit("devices", "--timeout", "0.1", "--json")
    (desk,) = [found for found in document(out)["found"] if found["source"] == "named"]
    assert (code, desk["address"], desk["facts"]["board"]) == (0, "ssh://pi@192.0.2.2", "raspberry-pi-5")
    assert "ssh://pi@192.0.2.2" in edgekit("devices", "--timeout", "0.1")[1]
    assert edgekit("devices", "remove", "desk")[0] == 0
    code, _, err = edgekit("devices", "remove", "desk")
    assert code == 2
    assert "no device 'desk'" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("local", "ssh://pi@desk"),
        ("desk", "pi@desk"),
        ("desk", "ssh://pi:secret@desk"),
        ("desk", "serial:/dev/ttyUSB0"),
        ("two words", "ssh://desk"),
        ("desk", "ssh://desk", "--board", "no-such-board"),
        ("desk", "ssh://desk", "--identity", "no-such-key"),
        ("desk", "ssh://desk", "--budget", "much"),
    ],
)
def test_what_cannot_work_is_refused(edgekit: Run, arguments: tuple[str, ...]) -> None:
    assert edgekit("devices", "add", *arguments)[0] == 2
    code, out, _ = edgekit("devices", "--timeout", "0.1", "--json")
    assert code == 0
    assert all(found["source"] != "named" for found in document(out)["found"])
