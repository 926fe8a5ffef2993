"""The emulator: its command line, its process, its console."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

from edgekit.links.deadline import Deadline
from edgekit.virtual.errors import VirtualBoardError
from edgekit.virtual.flash import BYTES, FLASH
from edgekit.virtual.settings import M7, MIB, Settings
from edgekit.virtual.tools import attempt, tool, words

# Files of a board's folder. QEMU runs there and gets these short names: a socket's path has room for 107 bytes only.
INITRAMFS, DISK, PID, CONSOLE, LOG = "initramfs", "home.img", "pid", "console", "console.log"

_POLL = 0.05  #: seconds between looks at the process
_LOCK = "hhqqi"  #: Linux's struct flock on 64 bits: type, whence, start, length, process


def arguments(settings: Settings, kernel: Path, port: int) -> list[str]:
    """QEMU's arguments, after its name. ``port`` of 127.0.0.1 leads to the guest's port 22, or to its serial line."""
    return _microcontroller(settings, kernel, port) if settings.machine == M7 else _linux(settings, kernel, port)


def _microcontroller(settings: Settings, bootloader: Path, port: int) -> list[str]:
    """The line sends bytes one by one: without nodelay each would wait for the one before it to be acknowledged."""
    return [
        *("-name", settings.name, *_counted(settings), *microcontroller(bootloader, FLASH)),
        *("-chardev", f"socket,id=line,host=127.0.0.1,port={port},server=on,wait=off,nodelay=on", "-serial", "chardev:line"),
        *("-display", "none", "-monitor", "none", "-daemonize", "-pidfile", PID),
    ]


def microcontroller(bootloader: Path, flash: str | Path) -> list[str]:
    """The machine alone. A reset loads the bootloader again, and leaves the flash, a shared file, as it is."""
    memory = f"memory-backend-file,id=flash,size={BYTES},mem-path={flash},share=on"
    return ["-machine", "mps2-an500,memory-backend=flash", "-object", memory, "-kernel", str(bootloader)]


def _counted(settings: Settings) -> list[str]:
    return ["-icount", "shift=0"] if settings.icount else []


def _linux(settings: Settings, kernel: Path, port: int) -> list[str]:
    """The guest reaches no network but through the one port."""
    return [
        *("-name", settings.name, "-machine", "virt", "-accel", "tcg", "-cpu", "cortex-a72"),
        *("-smp", str(settings.cpus), "-m", f"{settings.memory // MIB}M", *_counted(settings)),
        *("-kernel", str(kernel), "-initrd", INITRAMFS, "-append", "console=ttyAMA0 quiet panic=-1"),
        # writeback: a flush of the guest (fsync) becomes a flush of the host's file, so what was synced survives a power cut.
        *("-drive", f"if=none,id=home,file={DISK},format=raw,cache=writeback", "-device", "virtio-blk-pci,drive=home"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-chardev", f"socket,id=console,path={CONSOLE},server=on,wait=off,logfile={LOG}", "-serial", "chardev:console"),
        *("-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot", "-daemonize", "-pidfile", PID),
    ]


def launch(settings: Settings, folder: Path, kernel: Path, port: int) -> None:
    """Start QEMU in the background, in a process session of its own.

    Raises:
        VirtualBoardError: QEMU is missing or refuses.
    """
    log = folder / LOG
    if log.exists():
        log.replace(folder / f"{LOG}.1")
    (folder / PID).unlink(missing_ok=True)
    done = attempt((tool(program(settings)), *arguments(settings, kernel, port)), folder)
    if done.returncode != 0:
        raise VirtualBoardError(
            f"QEMU cannot start {settings.name}: {words(done)}", "if the port is taken, choose another: --port"
        )


def program(settings: Settings) -> str:
    """The emulator's name."""
    return "qemu-system-arm" if settings.machine == M7 else "qemu-system-aarch64"


def running_pid(folder: Path) -> int | None:
    """The process of a board's QEMU, which holds a lock on its PID file as long as it lives; None where there is none."""
    try:
        with (folder / PID).open("rb") as file:
            asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_LOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))  # asks without taking it
            return None if kind == fcntl.F_UNLCK else pid if pid > 0 else int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def wait_for_end(folder: Path, deadline: Deadline) -> bool:
    """Whether QEMU ended in time."""
    while running_pid(folder) is not None:
        if not deadline.remaining():
            return False
        time.sleep(_POLL)
    return True


def kill(folder: Path) -> None:
    """End QEMU at once, as a power cut would.

    Raises:
        VirtualBoardError: it does not end.
    """
    pid = running_pid(folder)
    if pid is None:
        return
    os.kill(pid, signal.SIGKILL)
    if not wait_for_end(folder, Deadline.after(10)):
        raise VirtualBoardError(f"QEMU (process {pid}) does not end", f"kill -KILL {pid}")


def power_off(folder: Path, deadline: Deadline) -> bool:
    """Type ``poweroff`` into the root shell on the serial console. Returns whether QEMU ended in time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as console:
            console.settimeout(deadline.remaining())
            console.connect(f"/proc/self/fd/{descriptor}/{CONSOLE}")  # the folder's own path may be too long for a socket
            console.sendall(b"\x15poweroff\n")  # Ctrl-U takes away what somebody left there
            # QEMU forgets what it has not passed on when a client leaves, so stay until QEMU itself goes.
            while console.recv(4096):
                console.settimeout(max(_POLL, deadline.remaining()))
    except OSError:  # the deadline, or another client that holds the console
        return False
    finally:
        os.close(descriptor)
    return wait_for_end(folder, deadline)


def log_tail(folder: Path, lines: int = 8) -> str:
    """The last lines that the board wrote to its console."""
    try:
        text = (folder / LOG).read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
