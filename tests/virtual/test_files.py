"""Keys, known hosts, the disk, the record and the PID file of a board."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.errors import InputError, IntegrityError
from edgekit.virtual.disk import make_disk
from edgekit.virtual.keys import key_pair
from edgekit.virtual.known_hosts import enrol, forget, known_hosts_file
from edgekit.virtual.qemu import running_pid
from edgekit.virtual.registry import board_folder, find, known, virtual_boards, write_record
from edgekit.virtual.settings import MIB, Settings
from edgekit.virtual.tools import tool
from tests.virtual.conftest import need

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""
KEY_A, KEY_B = "ssh-ed25519 AAAAa comment", "ssh-ed25519 AAAAb"


def test_a_key_pair_is_made_once_and_openssh_reads_it(tmp_path: Path) -> None:
    need("ssh-keygen")
    path = tmp_path / "keys" / "board"
    public = key_pair(path, "my board")
    assert key_pair(path, "another comment") == public
    assert public.endswith(" my board")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == public.split()[:2]


@pytest.mark.usefixtures("config")
def test_a_host_has_one_key_and_a_key_one_host() -> None:
    enrol("[127.0.0.1]:1", KEY_A)
    enrol("[127.0.0.1]:2", KEY_B)
    assert known_hosts_file().read_text() == "[127.0.0.1]:1 ssh-ed25519 AAAAa\n[127.0.0.1]:2 ssh-ed25519 AAAAb\n"
    enrol("[127.0.0.1]:2", KEY_A)  # the board moved to a port that another one had
    assert known_hosts_file().read_text() == "[127.0.0.1]:2 ssh-ed25519 AAAAa\n"
    forget("[127.0.0.1]:2", KEY_A)
    assert known_hosts_file().read_text() == ""


def test_other_lines_of_known_hosts_stay(config: Path) -> None:
    config.mkdir()
    others = "# mine\n@revoked * ssh-ed25519 AAAAa\n|1|hash= ssh-rsa AAAAc\nkitchen,192.0.2.1 ssh-ed25519 AAAAd\n"
    known_hosts_file().write_text(others + "kitchen,[127.0.0.1]:1 ssh-ed25519 AAAAe\n")
    enrol("[127.0.0.1]:1", KEY_A)
    assert known_hosts_file().read_text() == others + "kitchen ssh-ed25519 AAAAe\n[127.0.0.1]:1 ssh-ed25519 AAAAa\n"


def test_a_disk_takes_room_only_as_it_is_filled_and_is_kept(tmp_path: Path) -> None:
    need("mkfs.ext4")
    disk = tmp_path / "home.img"
    make_disk(disk, 1024 * MIB)
    assert disk.stat().st_size == 1024 * MIB
    assert disk.stat().st_blocks * 512 < 8 * MIB
    with disk.open("rb") as file:
        assert file.read(1082)[1080:] == b"\x53\xef"  # ext4's magic number
    before = disk.stat()
    make_disk(disk, 8 * MIB)
    assert disk.stat() == before
    make_disk(tmp_path / "small.img", 8 * MIB)


def test_a_new_disk_has_the_files_that_it_is_given(tmp_path: Path) -> None:
    need("mkfs.ext4", "debugfs")
    (tmp_path / "home" / "inner").mkdir(parents=True)
    (tmp_path / "home" / "inner" / "file").write_text("from the host")
    make_disk(tmp_path / "home.img", 8 * MIB, tmp_path / "home")
    said = subprocess.run((tool("debugfs"), "-R", "cat /inner/file", str(tmp_path / "home.img")), capture_output=True, text=True)
    assert said.stdout == "from the host"


def test_a_pid_file_counts_while_it_is_locked(tmp_path: Path) -> None:
    assert running_pid(tmp_path) is None
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "pid")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert running_pid(tmp_path) == process.pid
        process.kill()
    (tmp_path / "pid").write_text("1")  # a PID that lives, but not ours
    assert running_pid(tmp_path) is None


def test_boards_are_listed_by_name(config: Path) -> None:
    assert virtual_boards() == []
    for name in ("pi-2", "pi-1"):
        board_folder(name).mkdir(parents=True)
        write_record(Settings(name=name, port=2222))
    assert [board.name for board in virtual_boards()] == ["pi-1", "pi-2"]
    board = known("pi-1")
    assert (board.state, board.address, board.uptime) == ("stopped", "ssh://pi@127.0.0.1:2222", None)
    assert board.folder == config / "virtual" / "pi-1"
    with pytest.raises(InputError, match="pi-3") as caught:
        known("pi-3")
    assert "pi-1, pi-2" in caught.value.hint


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"colour": 1}', '{"cpus": 99}', "\0"])
def test_a_damaged_record_is_named(text: str) -> None:
    board_folder("pi-1").mkdir(parents=True)
    (board_folder("pi-1") / "board.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"board\.json"):
        find("pi-1")


def test_a_lock_file_is_no_board(config: Path) -> None:
    (config / "virtual").mkdir(parents=True)
    (config / "virtual" / f".{time.time()}.lock").touch()
    assert virtual_boards() == []
