"""For tests: a real OpenSSH server on loopback, as a process of its own, and the files of a user who logs in to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.firmware.build import cache_folder

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
MISSING = "needs OpenSSH's server: apt install openssh-server"
_SECONDS = 20.0


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """A new key pair at ``path`` and ``path``.pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)], check=True)
    return path


class Sshd:
    """One server. ``home`` is the board's EDGEKIT_HOME; ``options`` are lines for its configuration.

    It listens at ``host``; ``enter`` is what a command begins with that runs there.
    """

    def __init__(
        self, folder: Path, home: Path, authorized: Path, *options: str, host: str = "127.0.0.1", enter: Sequence[str] = ()
    ) -> None:
        assert SSHD is not None
        folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        self.folder, self.home, self.host, self.port = folder, home, host, free_port()
        self.host_key = folder / "host_key"
        if not self.host_key.exists():
            make_key(self.host_key)
        subsystem = [] if any("Subsystem" in line for line in options) else ["Subsystem sftp internal-sftp"]
        lines = [
            f"Port {self.port}",
            f"ListenAddress {host}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {authorized}",
            f"SetEnv EDGEKIT_HOME={home} HOME={folder}",  # the login shell reads nothing of whoever runs this
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PermitRootLogin yes",
            "MaxStartups 100",
            "LogLevel VERBOSE",
            *subsystem,
            *(line for line in options if line),
        ]
        config = folder / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        self.log = folder / "log"
        with self.log.open("ab") as log:
            command = [*enter, SSHD, "-D", "-e", "-f", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        self._await_greeting()

    @property
    def address(self) -> str:
        return f"ssh://{self.host}:{self.port}"

    @property
    def known_name(self) -> str:
        return f"[{self.host}]:{self.port}"

    @property
    def public_key(self) -> str:
        """Type and base64."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen prints it."""
        text = subprocess.run(["ssh-keygen", "-lf", str(self.host_key)], capture_output=True, text=True, check=True).stdout
        return text.split()[1]

    def stop(self) -> None:
        """End the server; connections that are open go on."""
        self._process.terminate()
        self._process.wait(10)

    def _await_greeting(self) -> None:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with socket.create_connection((self.host, self.port), timeout=5) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"sshd does not start:\n{self.log.read_text()}")


@contextlib.contextmanager
def lone_board(folder: Path, host: str = "127.0.0.1", enter: Sequence[str] = ()) -> Iterator[Sshd]:
    """For benchmarks: a board in ``folder``, and this process's user with a key for it, who knows its host key."""
    os.environ["EDGEKIT_CACHE"] = str(cache_folder().parent)
    os.environ.update(HOME=str(folder), EDGEKIT_CONFIG=f"{folder}/config")
    os.environ.pop("SSH_AUTH_SOCK", None)
    key = make_key(folder / ".ssh" / "id_ed25519")
    server = Sshd(folder / "board", folder / "home", key.with_suffix(".pub"), host=host, enter=enter)
    (folder / ".ssh" / "known_hosts").write_text(f"{server.known_name} {server.public_key}\n")
    try:
        yield server
    finally:
        server.stop()
