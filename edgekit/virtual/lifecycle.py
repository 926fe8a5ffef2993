"""Start, stop and delete virtual boards, and make them devices like any other: a known host key, an entry in devices.toml."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgekit import devices
from edgekit.errors import DeviceError, InputError, LinkError
from edgekit.files import storage_errors, write_atomic
from edgekit.links.deadline import Deadline
from edgekit.links.serial import open_line
from edgekit.mcuboot import make_bootloader
from edgekit.virtual import qemu
from edgekit.virtual.cpio import file, pack
from edgekit.virtual.disk import make_disk
from edgekit.virtual.flash import TARGET, make_flash
from edgekit.virtual.image import build_image
from edgekit.virtual.keys import key_pair
from edgekit.virtual.known_hosts import enrol, forget
from edgekit.virtual.progress import Progress, Step, silent
from edgekit.virtual.registry import (
    VirtualBoard,
    board_folder,
    board_locked,
    find,
    host_key,
    known,
    login_key,
    virtual_boards,
    write_record,
)
from edgekit.virtual.settings import M7, MACHINE, MACHINES, Settings
from edgekit.virtual.tools import tool

BOOT_SECONDS = 180.0  #: for a slow host; two idle cores take about 7
STOP_SECONDS = 30.0  #: the board gives its programs 10 to save
_GREETING = b"SSH-2.0-"
_POLL = 0.1


@dataclass(frozen=True)
class Started:
    """``already``: it ran before. ``seconds``: from QEMU's start to SSH's greeting, 0 where it ran before."""

    board: VirtualBoard
    already: bool
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """How a board came to its end."""

    board: VirtualBoard
    how: Literal["shut down", "switched off", "killed", "was not running"]


def start(
    settings: Settings,
    update: bool = False,
    timeout: float = BOOT_SECONDS,
    progress: Progress = silent,
    home: Path | None = None,
) -> Started:
    """Boot a board and wait until it answers. One that runs already is left as it is.

    ``update`` asks the package sources for newer packages. ``timeout`` is in seconds, from QEMU's start. ``home`` is a folder
    whose files a new board has in its /home.

    Raises:
        InputError: the port is taken, or the name belongs to another device.
        VirtualBoardError: a tool or a package is missing, or QEMU refuses.
        DeviceError: the board does not answer in time. It is stopped again.
        StorageError: the configuration or the cache folder cannot be written.
    """
    with board_locked(settings.name):
        board = find(settings.name)
        if board is not None and board.pid is not None:
            _register(board)
            return Started(board, already=True, seconds=0.0)
        _check_name(settings)
        settings = replace(settings, port=_choose_port(settings, board))
        kernel = _prepare(settings, update, progress, home)
        return _boot(settings, kernel, timeout, progress)


def stop(name: str, kill: bool = False, timeout: float = STOP_SECONDS) -> Stopped:
    """Shut a board down, so that its programs may save and its file system is clean.

    ``kill`` cuts its power instead; so it goes, too, with a board that is not down within ``timeout`` seconds.

    Raises:
        InputError: there is no such board.
    """
    with board_locked(name):
        board = known(name)
        if board.pid is None:
            return Stopped(board, "was not running")
        if board.settings.machine == M7:
            qemu.kill(board.folder)
            return Stopped(known(name), "switched off")
        if not kill and qemu.power_off(board.folder, Deadline.after(timeout)):
            return Stopped(known(name), "shut down")
        qemu.kill(board.folder)
        return Stopped(known(name), "killed")


def delete(name: str) -> VirtualBoard:
    """Kill a board and forget it: its disk with all that is in its home, its key, its entry among the devices.

    Raises:
        InputError: there is no such board.
        StorageError: its folder cannot be deleted.
    """
    with board_locked(name):
        board = known(name)
        qemu.kill(board.folder)
        if board.settings.machine != M7:
            forget(board.known_host, key_pair(host_key(name), name))
        devices.remove(name)
        with storage_errors(f"cannot delete {board.folder}"):
            shutil.rmtree(board.folder)
        return board


def _check_name(settings: Settings) -> None:
    """Do not take the name of a device that is no virtual board, or another one."""
    name = settings.name
    device = devices.load_devices().get(name)
    if device is not None and device.board not in MACHINES:
        raise InputError(f"{name} is the name of another device, {device.address}", "choose another: --name")
    before = find(name)
    if before is not None and before.settings.machine != settings.machine:
        raise InputError(f"{name} is a {before.settings.machine}", f"another --name, or `edgekit virtual stop {name} --delete`")


def _choose_port(settings: Settings, before: VirtualBoard | None) -> int:
    """The port that was asked for, the one that the board had, or one that no other board has."""
    if settings.port is not None:
        if not _is_free(settings.port):
            raise InputError(f"port {settings.port} of 127.0.0.1 is taken", "choose another, or leave out --port")
        return settings.port
    if before is not None and _is_free(before.port):
        return before.port
    others = {board.port for board in virtual_boards()}
    while (port := _some_port()) in others:
        pass
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does
        with contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return True
    return False


def _some_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _prepare(settings: Settings, update: bool, progress: Progress, home: Path | None) -> Path:
    """All files that a board needs; returns its kernel."""
    tool(qemu.program(settings))
    if settings.machine == M7:
        return _prepare_microcontroller(settings)
    tool("mkfs.ext4")  # before minutes of fetching
    image = build_image(update, progress)
    folder = board_folder(settings.name)
    with storage_errors(f"cannot use the folder {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        everywhere = image.initramfs.read_bytes()
    make_disk(folder / qemu.DISK, settings.disk, home)
    write_atomic(folder / qemu.INITRAMFS, everywhere + _own_part(settings.name), mode=0o600)
    write_record(settings)
    return image.kernel


def _prepare_microcontroller(settings: Settings) -> Path:
    bootloader = make_bootloader(TARGET)
    folder = board_folder(settings.name)
    with storage_errors(f"cannot use the folder {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
    make_flash(folder)
    write_record(settings)
    return bootloader


def _own_part(name: str) -> bytes:
    """What one board has of its own: its name, its key, and who may log in."""
    login = key_pair(login_key(), "edgekit virtual boards")
    key_pair(host_key(name), name)
    return pack(
        (
            file("etc/hostname", f"{name}\n".encode()),
            file("etc/hosts", f"127.0.0.1 localhost {name}\n".encode()),
            file("etc/ssh/authorized_keys", f"{login}\n".encode()),
            file("etc/ssh/ssh_host_ed25519_key", host_key(name).read_bytes(), 0o600),
        )
    )


def _boot(settings: Settings, kernel: Path, timeout: float, progress: Progress) -> Started:
    began = time.monotonic()
    folder = board_folder(settings.name)
    qemu.launch(settings, folder, kernel, settings.port or 0)
    try:
        _wait_for_answer(settings, Deadline.after(timeout), progress)
        board = known(settings.name)
        _register(board)
    except BaseException:  # also Ctrl-C: no half-started board stays behind
        qemu.kill(folder)
        raise
    return Started(board, already=False, seconds=time.monotonic() - began)


def _register(board: VirtualBoard) -> None:
    """Make it a device that everything knows."""
    if board.settings.machine == M7:
        devices.add(devices.KnownDevice(name=board.name, address=board.address, board=M7))
        return
    enrol(board.known_host, key_pair(host_key(board.name), board.name))
    devices.add(devices.KnownDevice(name=board.name, address=board.address, identity=str(login_key().absolute()), board=MACHINE))


def _wait_for_answer(settings: Settings, deadline: Deadline, progress: Progress) -> None:
    folder = board_folder(settings.name)
    while not (_line_answers if settings.machine == M7 else _greets)(settings.port or 0, deadline):
        progress(Step("booting", round(deadline.seconds - deadline.remaining()), round(deadline.seconds)))
        ended = qemu.running_pid(folder) is None
        if ended or not deadline.remaining():
            how = "ended while booting" if ended else f"did not answer within {deadline.seconds:g} s"
            hint = f"its console: {folder / qemu.LOG}; `edgekit virtual start --timeout SECONDS` gives it longer"
            raise DeviceError(f"{settings.name} {how}; its last words:\n{qemu.log_tail(folder)}", hint)
        time.sleep(_POLL)


def _line_answers(port: int, deadline: Deadline) -> bool:  # noqa: ARG001
    """Whether the firmware at the other end of a serial line answers, or another program has the line: it takes one at a time."""
    with contextlib.suppress(LinkError):
        open_line(f"socket://127.0.0.1:{port}").close()
        return True
    return False


def _greets(port: int, deadline: Deadline) -> bool:
    """Whether an SSH server says hello. QEMU itself takes the connection before the board can, then ends it or stays silent."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.settimeout(max(_POLL, min(2.0, deadline.remaining())))
        return connection.recv(len(_GREETING)).startswith(_GREETING)
    return False
