"""`edgekit-runner receive`: a file from stdin, from where an earlier try ended."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.host.home import Home

CONTENT = os.urandom((9 << 20) + 13)  #: more than one writeback, and no whole piece


def receive(command: tuple[str, ...], path: Path, size: int, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*command, "receive", str(path), str(size)], input=data, capture_output=True, timeout=60)


@pytest.mark.parametrize("there", [0, 1, 64, 1 << 18, len(CONTENT) - 1, len(CONTENT)])
def test_it_says_where_it_goes_on_and_the_digest_of_the_whole(command: tuple[str, ...], tmp_path: Path, there: int) -> None:
    path = tmp_path / "a b.part"
    path.write_bytes(CONTENT[:there])
    done = receive(command, path, len(CONTENT), CONTENT[there:])
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{there}\n{hashlib.sha256(CONTENT).hexdigest()}\n"
    assert path.read_bytes() == CONTENT


def test_on_arm(emulated: Home, tmp_path: Path) -> None:
    """Where the digest comes from other instructions."""
    done = receive(emulated.command, tmp_path / "part", len(CONTENT), CONTENT)
    assert done.stdout.decode() == f"0\n{hashlib.sha256(CONTENT).hexdigest()}\n"


def test_other_bytes_that_were_there_show_in_the_digest(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(bytes(1000))
    done = receive(command, path, len(CONTENT), CONTENT[1000:])
    assert done.stdout.decode().split()[1] == hashlib.sha256(bytes(1000) + CONTENT[1000:]).hexdigest()


def test_an_empty_file_and_one_that_was_longer(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"longer")
    for size, data in ((2, b"ab"), (0, b"")):
        assert receive(command, path, size, data).stdout.decode() == f"0\n{hashlib.sha256(data).hexdigest()}\n"
        assert path.read_bytes() == data


def test_what_came_before_a_cut_stays(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "part"
    done = receive(command, path, len(CONTENT), CONTENT[:300_000])
    assert (done.returncode, done.stdout) == (1, b"0\n")
    assert f"ends at 300000 of {len(CONTENT)} bytes" in done.stderr.decode()
    assert path.read_bytes() == CONTENT[:300_000]
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_bytes_are_taken_that_do_not_fit(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "part"
    done = receive(command, path, 1 << 60, b"")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "1099511627776.0 MiB are to come" in done.stderr.decode()
    assert "No space left on device" in done.stderr.decode()
    assert not path.exists()


def test_a_folder_that_is_not_there(command: tuple[str, ...], tmp_path: Path) -> None:
    done = receive(command, tmp_path / "none" / "part", 5, b"abcde")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "No such file or directory" in done.stderr.decode()
