"""A real virtual board: boot, log in by the enrolled key, cut its power, boot it again."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgekit.firmware.build import build

from edgekit.devices import load_devices
from edgekit.errors import DeviceError, InputError
from edgekit.virtual import Settings, VirtualBoard, delete, start, stop, virtual_boards
from edgekit.virtual.known_hosts import known_hosts_file
from edgekit.virtual.qemu import running_pid
from edgekit.virtual.registry import board_folder
from edgekit.virtual.settings import MIB
from tests.virtual.conftest import need

pytestmark = pytest.mark.slow

#: A program that saves when it is asked to end, as a session host does.
SAVES = "trap 'sleep 1; echo saved > saved; exit' TERM; echo ready > ready; while :; do usleep 50000; done"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    """A running board in a configuration folder of its own; whoever stops it starts it again."""
    need("qemu-system-aarch64", "mkfs.ext4", "apt-get", "ssh", "sftp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("a long folder name, with a comma") / ("config" * 12)))
        try:
            yield start(Settings(disk=256 * MIB)).board
        finally:
            for one in virtual_boards():
                delete(one.name)


def options(board: VirtualBoard, port_flag: str) -> list[str]:
    """OpenSSH's, from nothing but edgekit's own lists."""
    identity = load_devices()[board.name].identity
    settings = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{known_hosts_file()}"',
        "GlobalKnownHostsFile": "none",
        "IdentitiesOnly": "yes",
        "ConnectTimeout": "30",
    }
    words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return ["-F", "none", *words, "-i", str(identity), port_flag, str(board.port)]


def ssh(board: VirtualBoard, command: str, user: str = "pi", data: bytes = b"") -> str:
    """What a command on the board says."""
    words = ["ssh", *options(board, "-p"), f"{user}@127.0.0.1", command]
    done = subprocess.run(words, input=data, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_its_key_is_known_and_pi_may_log_in(board: VirtualBoard) -> None:
    assert ssh(board, "uname -m; id -un; hostname; nproc; pwd").split() == ["aarch64", "pi", "virtual-pi-4", "2", "/home/pi"]
    assert ssh(board, "id -u", user="root").strip() == "0"
    assert abs(int(ssh(board, "date +%s")) - time.time()) < 60
    device = load_devices()["virtual-pi-4"]
    assert (device.address, device.board) == (f"ssh://pi@127.0.0.1:{board.port}", "virtual-pi-4")


def test_a_second_start_leaves_it_as_it_is(board: VirtualBoard) -> None:
    before = next(b for b in virtual_boards() if b.name == board.name)
    again = start(Settings(cpus=1))
    assert again.already
    assert again.board.pid == before.pid
    assert again.board.settings == before.settings


def test_the_runner_runs_there(board: VirtualBoard) -> None:
    runner = build("runner", "aarch64-linux")
    ssh(board, "cat > edgekit-runner && chmod +x edgekit-runner", data=runner.read_bytes())
    assert "aarch64" in ssh(board, "./edgekit-runner version")


def test_files_go_and_come_by_sftp(board: VirtualBoard, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(bytes(range(256)) * 1000)
    words = ["sftp", "-b", "-", *options(board, "-P"), "pi@127.0.0.1"]
    subprocess.run(words, input=b"put there\nget there back\n", cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


def test_it_reaches_no_network(board: VirtualBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ssh(board, f"echo | timeout 3 nc 10.0.2.2 {port} && echo reached || echo not").strip() == "not"


def test_what_was_synced_survives_a_power_cut(board: VirtualBoard) -> None:
    ssh(board, "mkdir -p run; dd if=/dev/urandom of=run/checkpoint bs=1M count=4 2>/dev/null; sync")
    digest = ssh(board, "sha256sum run/checkpoint")
    ssh(board, "setsid sh -c 'while :; do date > run/busy; done' >/dev/null 2>&1 </dev/null &")
    stopped = stop(board.name, kill=True)
    assert stopped.how == "killed"
    assert (stopped.board.state, running_pid(board.folder)) == ("stopped", None)
    assert start(board.settings).board.port == board.port
    assert ssh(board, "sha256sum run/checkpoint") == digest
    assert "recovery complete" in ssh(board, "dmesg", user="root")


def test_a_stop_lets_programs_save(board: VirtualBoard) -> None:
    ssh(board, f"rm -f ready saved; setsid sh -c '{SAVES.replace(chr(39), chr(34))}' >/dev/null 2>&1 </dev/null &")
    ssh(board, "while [ ! -e ready ]; do usleep 50000; done")
    assert stop(board.name).how == "shut down"
    assert stop(board.name).how == "was not running"
    start(board.settings)
    assert ssh(board, "cat saved").strip() == "saved"
    assert "recovery complete" not in ssh(board, "dmesg", user="root")


def test_a_board_that_hangs_is_killed(board: VirtualBoard) -> None:
    ssh(
        board,
        "mv /etc/shutdown /etc/gone; printf '#!/bin/sh\\nsleep 1000\\n' > /etc/shutdown; chmod +x /etc/shutdown",
        user="root",
    )
    began = time.monotonic()
    assert stop(board.name, timeout=3).how == "killed"
    assert time.monotonic() - began < 15
    start(board.settings)


def test_two_at_a_time(board: VirtualBoard) -> None:
    second = start(Settings(name="pi-2", cpus=1, icount=True, memory=256 * MIB, disk=16 * MIB)).board
    try:
        assert second.port != board.port
        assert ssh(second, "hostname; nproc").split() == ["pi-2", "1"]
        assert ssh(board, "hostname").strip() == "virtual-pi-4"
        alias = ["-o", f"HostKeyAlias=[127.0.0.1]:{board.port}"]  # each is known by its own key alone
        words = ["ssh", *alias, *options(second, "-p"), "pi@127.0.0.1", "true"]
        refused = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
    finally:
        delete("pi-2")
    assert "pi-2" not in load_devices()
    assert not second.folder.exists()


@pytest.mark.usefixtures("board")
def test_a_board_that_does_not_answer_in_time_is_not_left_running() -> None:
    with pytest.raises(DeviceError, match=r"within 0\.5 s"):
        start(Settings(name="late", disk=16 * MIB), timeout=0.5)
    assert running_pid(board_folder("late")) is None
    assert "late" not in load_devices()


@pytest.mark.usefixtures("board")
def test_a_home_that_cannot_be_mounted_is_said() -> None:
    with pytest.raises(DeviceError):
        start(Settings(name="broken", disk=16 * MIB), timeout=0.5)
    with (board_folder("broken") / "home.img").open("r+b") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(DeviceError, match="the home cannot be mounted"):
        start(Settings(name="broken"))


@pytest.mark.usefixtures("board")
def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(InputError, match="is taken"):
        start(Settings(name="elsewhere", port=server.getsockname()[1]))
