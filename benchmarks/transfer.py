"""Files over SSH beside ``scp``, on the same path to a real sshd.

    python -m benchmarks.transfer [--megabytes 256] [--rounds 5] [--mbit 1000]

On loopback the processor limits both; ``--mbit`` paces a line into a network namespace (root, tc). Rounds are interleaved;
every time includes connecting and logging in.

``put_file`` and ``get_file`` are what users call. An upload's time ends when the file has been hashed here and on the board,
and is on the board's disk; scp's ends when the board's kernel has the bytes: "scp, sync, sha256sum" is what compares in kind.
``upload`` and ``download`` are SFTP alone; the upload is that of a runner's first flash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from tests.support.network import Namespace, ip
from tests.support.sshd import MISSING, SSHD, Sshd, lone_board

_SECONDS = 600.0
_UP = ("scp up", "scp, sync, sha256sum", "put_file", "upload")


@click.command()
@click.option("--megabytes", default=256, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--mbit", type=int, help="Megabit a second of the line to the board.  [default: loopback]")
@click.option("--only", multiple=True, metavar="WAY", help="A row of the table, as often as wanted.  [default: all]")
def main(megabytes: int, rounds: int, mbit: int | None, only: tuple[str, ...]) -> None:
    """Time both sides and print the ratio by round."""
    if SSHD is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as name, _line(mbit) as (host, enter), lone_board(Path(name), host, enter) as server:
        times = _measure(Path(name), server, megabytes, rounds, only)
    _report(times, megabytes, f"{mbit} Mbit/s" if mbit else "loopback")


@contextlib.contextmanager
def _line(mbit: int | None) -> Iterator[tuple[str, Sequence[str]]]:
    """The board's address at the end of a line, and what a command begins with that runs there."""
    if mbit is None:
        yield "127.0.0.1", ()
        return
    place = Namespace()
    try:
        mine, other = place.devices
        ip("link", "add", mine, "type", "veth", "peer", "name", other)
        place.join()
        pace = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "1mb", "latency", "50ms"]
        for inside, device in (((), mine), (place.enter, other)):
            subprocess.run([*inside, "tc", "qdisc", "add", "dev", device, *pace], check=True)
        yield place.there, place.enter
    finally:
        place.remove()


def _measure(folder: Path, server: Sshd, megabytes: int, rounds: int, only: Sequence[str]) -> dict[str, list[float]]:
    file, sent, back = folder / "file", folder / "sent", folder / "back"
    file.write_bytes(os.urandom(megabytes << 20))
    _install_runner(server.home)
    wanted = {peer for way in only for peer in (way, _peer(way))}
    ways = {way: run for way, run in _ways(server, file, sent, back).items() if not only or way in wanted}
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
    size = file.stat().st_size

    keys = Path.home() / ".ssh"
    options = [
        "-q",
        "-i",
        str(keys / "id_ed25519"),
        "-o",
        f"UserKnownHostsFile={keys / 'known_hosts'}",
        "-o",
        f"Port={server.port}",
    ]

    def scp(*words: str) -> None:
        subprocess.run(["scp", *options, *words], check=True)

    def scp_and_verify() -> None:
        scp(str(file), f"{server.host}:{sent}")
        words = f"sync '{sent}' && sha256sum '{sent}'"
        subprocess.run(["ssh", *options, server.host, words], check=True, stdout=subprocess.DEVNULL)

    def just_upload() -> None:
        deadline = Deadline.after(_SECONDS)
        with Connection(server.address, deadline) as connection, file.open("rb", buffering=0) as source:
            upload(connection.sftp(deadline), source, size, str(sent), deadline, lambda *_: None)

    def just_download() -> None:
        deadline = Deadline.after(_SECONDS)
        with Connection(server.address, deadline) as connection, back.open("wb") as target:
            sftp = connection.sftp(deadline)
            download(sftp, sftp.open(str(sent), READ, deadline), str(sent), size, target, 0, deadline, lambda *_: None)

    def put_file() -> None:
        store._sha256.cache_clear()
        link = SshLink(Connection(server.address), progress=silent)
        link.put_file(file, Deadline.after(_SECONDS))
        link.close()

    def get_file() -> None:
        link = SshLink(Connection(server.address))
        link.get_file(str(sent), back, Deadline.after(_SECONDS))
        link.close()

    return {
        "scp up": lambda: scp(str(file), f"{server.host}:{sent}"),
        "scp, sync, sha256sum": scp_and_verify,
        "put_file": put_file,
        "upload": just_upload,
        "scp down": lambda: scp(f"{server.host}:{sent}", str(back)),
        "download": just_download,
        "get_file": get_file,
    }


def _install_runner(home: Path) -> None:
    release = home / "releases" / "bench"
    release.mkdir(parents=True)
    shutil.copy(build("runner", native_target()), release / "edgekit-runner")
    (home / "current").symlink_to("releases/bench")


def _peer(way: str) -> str:
    return "scp up" if way in _UP else "scp down"


def _rows(times: dict[str, list[float]], megabytes: int) -> Iterator[tuple[str, str, str, str]]:
    for name, values in times.items():
        peers = times[_peer(name)]
        ratios = [value / peer for value, peer in zip(values, peers, strict=True)]  # by round: other load comes and goes
        speed = f"{megabytes / statistics.median(values):.0f} MiB/s"
        yield name, _spread(values), speed, _spread(ratios)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} … {max(values):.2f})"


def _report(times: dict[str, list[float]], megabytes: int, line: str) -> None:
    """Medians, with the least and the most in brackets."""
    table = Table("way", "seconds", "speed", "time / scp's", title=f"{megabytes} MiB over SSH, {line}")
    for row in _rows(times, megabytes):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
