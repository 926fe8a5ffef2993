"""Files over SSH beside ``scp``, on the same path: a real sshd on loopback, so that the processor is what limits both.

    python -m benchmarks.transfer [--megabytes 256] [--rounds 5]

Rounds are interleaved; every time includes connecting and logging in. ``upload`` and ``download`` are the transfer alone;
``put_file`` and ``get_file`` are what users call: an upload's digest here and on the board, and fsync, which scp does not do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from edgekit.firmware.build import build
from rich.console import Console
from rich.table import Table

from edgekit.links import native_target
from edgekit.links.deadline import Deadline
from edgekit.links.progress import silent
from edgekit.links.ssh import Connection, SshLink, store
from edgekit.links.ssh.sftp import READ
from edgekit.links.ssh.transfer import download, upload
from tests.support.sshd import MISSING, SSHD, Sshd, lone_board

_SECONDS = 600.0
_UP = ("scp up", "upload", "put_file")


@click.command()
@click.option("--megabytes", default=256, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(megabytes: int, rounds: int) -> None:
    """Time both sides and print the ratio of their medians."""
    if SSHD is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as name, lone_board(Path(name)) as server:
        _report(_measure(Path(name), server, megabytes, rounds), megabytes)


def _measure(folder: Path, server: Sshd, megabytes: int, rounds: int) -> dict[str, list[float]]:
    file, sent, back = folder / "file", folder / "sent", folder / "back"
    file.write_bytes(os.urandom(megabytes << 20))
    _install_runner(server.home)
    ways = _ways(server, file, sent, back)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            for leftover in (sent, back, *(server.home / "store").glob("*")):
                leftover.unlink(missing_ok=True)
            if name not in _UP:
                sent.write_bytes(file.read_bytes())
            os.sync()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def _ways(server: Sshd, file: Path, sent: Path, back: Path) -> dict[str, Callable[[], None]]:
    address = server.address
    size = file.stat().st_size

    def scp(*words: str) -> None:
        known = f"UserKnownHostsFile={Path.home() / '.ssh' / 'known_hosts'}"
        key = str(Path.home() / ".ssh" / "id_ed25519")
        subprocess.run(["scp", "-q", "-i", key, "-o", known, "-P", str(server.port), *words], check=True)

    def just_upload() -> None:
        deadline = Deadline.after(_SECONDS)
        with Connection(address, deadline) as connection, file.open("rb", buffering=0) as source:
            upload(connection.sftp(deadline), source, size, str(sent), deadline, lambda *_: None)

    def just_download() -> None:
        deadline = Deadline.after(_SECONDS)
        with Connection(address, deadline) as connection, back.open("wb") as target:
            sftp = connection.sftp(deadline)
            download(sftp, sftp.open(str(sent), READ, deadline), str(sent), size, target, 0, deadline, lambda *_: None)

    def put_file() -> None:
        store._sha256.cache_clear()
        link = SshLink(Connection(address), progress=silent)
        link.put_file(file, Deadline.after(_SECONDS))
        link.close()

    def get_file() -> None:
        link = SshLink(Connection(address))
        link.get_file(str(sent), back, Deadline.after(_SECONDS))
        link.close()

    return {
        "scp up": lambda: scp(str(file), f"127.0.0.1:{sent}"),
        "upload": just_upload,
        "put_file": put_file,
        "scp down": lambda: scp(f"127.0.0.1:{sent}", str(back)),
        "download": just_download,
        "get_file": get_file,
    }


def _install_runner(home: Path) -> None:
    release = home / "releases" / "bench"
    release.mkdir(parents=True)
    shutil.copy(build("runner", native_target()), release / "edgekit-runner")
    (home / "current").symlink_to("releases/bench")


def _rows(times: dict[str, list[float]], megabytes: int) -> Iterator[tuple[str, str, str, str]]:
    for name, values in times.items():
        peer = statistics.median(times["scp up" if name in _UP else "scp down"])
        median = statistics.median(values)
        spread = f"{min(values):.2f} … {max(values):.2f}"
        yield name, f"{median:.2f} s ({spread})", f"{megabytes / median:.0f} MiB/s", f"{median / peer:.2f}"


def _report(times: dict[str, list[float]], megabytes: int) -> None:
    table = Table("way", "median (least … most)", "speed", "time / scp's", title=f"{megabytes} MiB over a loopback sshd")
    for row in _rows(times, megabytes):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
