"""The link over a real sshd: messages, files by content, and what happens when the way breaks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import IntegrityError, LinkError
from edgekit.links import Deadline, LinkTimeout, Moved, open_link
from edgekit.links.ssh import Connection, SshLink, errors
from edgekit.protocol import Client
from tests.support.boards import Start, install, know
from tests.support.disks import names, remount, small_disk
from tests.support.proxy import Proxy
from tests.support.sshd import Sshd

MIB = 1 << 20


def soon() -> Deadline:
    return Deadline.after(20)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def await_end_of(word: str) -> None:
    """Wait until no process whose command line has this word is left: what a cut connection had brought is written then."""
    end = time.monotonic() + 10
    while word in subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < end, word
        time.sleep(0.02)


@pytest.fixture
def link(flashed: Sshd, address: str) -> Iterator[SshLink]:
    del flashed
    opened = open_link(address, threads=1)
    assert isinstance(opened, SshLink)
    yield opened
    opened.close()


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """More than is in flight at once."""
    path = tmp_path / "sample.bin"
    path.write_bytes(os.urandom(9 * MIB + 7))
    return path


# Messages


def test_messages_go_there_and_back(link: SshLink) -> None:
    client = Client(link)
    assert client.echo("grüße") == "grüße"
    assert client.info().threads == 1  # the option arrived


def test_a_users_paths_begin_where_a_login_does(link: SshLink) -> None:
    home = link.connection.run('printf %s "$HOME"', soon()).out
    for said, meant in {"data": f"{home}/data", "~/data/": f"{home}/data", "~": home, "/mnt/../data": "/data"}.items():
        assert link.user_path(said) == meant


def test_a_board_without_runner_names_the_command(address: str) -> None:
    link = open_link(address)
    with pytest.raises(errors.NoRunner) as caught:
        Client(link).info()
    assert f"edgekit flash {address}" in caught.value.hint
    link.close()


def test_a_runner_for_another_processor(board: Sshd, address: str) -> None:
    release = install(board.home, "#!/bin/sh\nexit 0\n")
    header = bytes.fromhex("7f454c460201010000000000000000000200f300") + bytes(100)  # an ELF file for RISC-V
    (release / "edgekit-runner").write_bytes(header)
    link = open_link(address)
    with pytest.raises(errors.WrongArchitecture, match="riscv64"):
        Client(link).info()
    link.close()


def test_a_runner_that_may_not_be_run(board: Sshd, address: str) -> None:
    (install(board.home, "#!/bin/sh\n") / "edgekit-runner").chmod(0o600)
    link = open_link(address)
    with pytest.raises(errors.RemotePermission, match="may not run"):
        Client(link).info()
    link.close()


@pytest.mark.parametrize(("code", "words"), [(3, "no session host could be started"), (4, "does not answer")])
def test_attach_tells_why_it_ends(board: Sshd, address: str, code: int, words: str) -> None:
    install(board.home, f"#!/bin/sh\necho 'the disk burns' >&2\nexit {code}\n")
    link = open_link(address)
    with pytest.raises(LinkError, match=f"{words}: the disk burns"):
        Client(link).info()
    link.close()


def test_a_runner_that_dies_is_a_lost_connection_with_its_words(board: Sshd, address: str) -> None:
    install(board.home, "#!/bin/sh\nhead -c 1 >/dev/null; printf x; echo 'bad op' >&2; exit 9\n")
    link = open_link(address)
    link.send(b"abc", soon())
    assert link.receive(soon()) == b"x"
    with pytest.raises(errors.ConnectionLost, match=r"exit code 9.*bad op"):
        link.receive(soon())
    link.close()


def test_silence_is_a_timeout_and_the_link_stays(link: SshLink) -> None:
    start = time.monotonic()
    with pytest.raises(LinkTimeout, match=r"0\.3 s"):
        link.receive(Deadline.after(0.3))
    assert time.monotonic() - start < 3
    assert Client(link).echo("still there") == "still there"


def test_a_half_open_connection_ends_at_the_deadline(flashed: Sshd, proxy: Proxy, through: str) -> None:
    del flashed
    link = open_link(through)
    client = Client(link)
    client.info()
    proxy.silent_after = 0
    start = time.monotonic()
    link.send(b"x" * 8, Deadline.after(1))
    with pytest.raises(LinkError):
        link.receive(Deadline.after(1))
    with pytest.raises(LinkError):  # more than TCP's buffers take
        link.send(bytes(64 * MIB), Deadline.after(1))
    assert time.monotonic() - start < 10
    link.close()


def test_a_closed_link_says_so(link: SshLink, tmp_path: Path) -> None:
    link.close()
    link.close()
    for call in (lambda: link.send(b"x", soon()), lambda: link.receive(soon()), lambda: link.put_file(tmp_path, soon())):
        with pytest.raises(LinkError, match="closed"):
            call()


# Files to the board


def test_a_file_lies_under_its_digest_and_is_sent_once(link: SshLink, flashed: Sshd, sample: Path) -> None:
    seen: list[Moved] = []
    link.progress = seen.append
    path = link.put_file(sample, soon())
    data = sample.read_bytes()
    assert path == f"{flashed.home}/store/{digest(data)}"
    assert Path(path).read_bytes() == data
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, len(data), len(data))
    assert not Path(f"{path}.part").exists()
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    before = Path(path).stat().st_mtime_ns
    copy = sample.with_name("copy")
    shutil.copy(sample, copy)
    assert link.put_file(copy, soon()) == path
    assert Path(path).stat().st_mtime_ns == before


def test_an_empty_file(link: SshLink, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert Path(link.put_file(tmp_path / "empty", soon())).read_bytes() == b""


def test_a_folder_is_links_to_the_store(link: SshLink, flashed: Sshd, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "inputs.npy").write_bytes(b"some inputs")
    (data / "targets.npy").write_bytes(b"some targets")
    (data / "notes.txt").write_text("not for the board")
    lines = "".join(sorted(f"{p.name} {digest(p.read_bytes())}\n" for p in data.glob("*.npy")))
    path = link.put_file(data, soon())
    assert path == f"{flashed.home}/store/{digest(lines.encode())}.data"
    assert sorted(names(path)) == ["inputs.npy", "targets.npy"]
    assert str(Path(path, "inputs.npy").readlink()) == f"../{digest(b'some inputs')}"
    assert Path(path, "targets.npy").read_bytes() == b"some targets"
    assert link.put_file(data, soon()) == path
    assert not [name for name in names(f"{flashed.home}/store") if name.count(".") > 1]


def test_an_upload_goes_on_where_it_was_cut(flashed: Sshd, proxy: Proxy, through: str, sample: Path) -> None:
    def cut(moved: Moved) -> None:
        if moved.done > MIB // 2:
            proxy.cut()

    link = open_link(through, progress=cut)
    with pytest.raises(errors.ConnectionLost):
        link.put_file(sample, soon())
    link.close()
    part = flashed.home / "store" / f"{digest(sample.read_bytes())}.part"
    await_end_of(str(part))
    there = part.stat().st_size
    assert MIB // 2 < there < sample.stat().st_size
    assert part.read_bytes() == sample.read_bytes()[:there]
    sent = proxy.sent
    seen: list[Moved] = []
    link = open_link(through, progress=seen.append)
    path = link.put_file(sample, soon())
    link.close()
    assert Path(path).read_bytes() == sample.read_bytes()
    assert seen[0].done == there
    assert proxy.sent - sent < sample.stat().st_size - there + MIB // 4


def test_a_half_open_upload_ends_in_time_and_goes_on(
    flashed: Sshd, proxy: Proxy, through: str, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.links.ssh.receive.STALL", 1.0)
    proxy.silent_after = 2 * MIB
    link = open_link(through)
    start = time.monotonic()
    with pytest.raises(LinkError, match=r"nothing has moved|no more data|lost"):
        link.put_file(sample, Deadline.after(60))
    assert time.monotonic() - start < 15
    link.close()
    proxy.heal()
    link = open_link(through)
    assert Path(link.put_file(sample, soon())).read_bytes() == sample.read_bytes()
    link.close()
    assert (flashed.home / "store").exists()


def test_a_piece_with_other_bytes_is_sent_anew(link: SshLink, flashed: Sshd, sample: Path) -> None:
    """As a power cut leaves it: the length is right, the content is not."""
    store = flashed.home / "store"
    store.mkdir(parents=True)
    (store / f"{digest(sample.read_bytes())}.part").write_bytes(bytes(2 * MIB))
    assert Path(link.put_file(sample, soon())).read_bytes() == sample.read_bytes()


def test_a_board_that_spoils_bytes_is_an_integrity_error(board: Sshd, address: str, sample: Path) -> None:
    install(board.home, f"#!/bin/sh\n: > $2; echo 0; head -c $3 > /dev/null; echo {'0' * 64}\n")
    link = open_link(address)
    with pytest.raises(IntegrityError, match="SHA-256"):
        link.put_file(sample, soon())
    link.close()
    assert names(board.home / "store") == []


def test_a_runner_that_does_not_know_how_to_receive(board: Sshd, address: str, sample: Path) -> None:
    install(board.home, "#!/bin/sh\necho 'edgekit-runner: unknown word receive' >&2\nexit 2\n")
    link = open_link(address)
    with pytest.raises(LinkError, match="too old") as caught:
        link.put_file(sample, soon())
    assert f"edgekit flash {address}" in caught.value.hint
    link.close()


def test_a_runner_that_ends_while_it_receives(board: Sshd, address: str, sample: Path) -> None:
    """Its word counts, not that the rest could not be sent; and the connection is still good."""
    end = "echo 'edgekit-runner: cannot write x: No space left on device' >&2; exit 1"
    install(board.home, f"#!/bin/sh\necho 0; head -c 100000 > $2; {end}\n")
    link = open_link(address)
    with pytest.raises(errors.RemoteDiskFull, match="cannot write x: No space left"):
        link.put_file(sample, soon())
    assert link.connection.run("echo there", soon()).out == "there\n"
    link.close()


def test_a_login_shell_that_prints_is_named(board: Sshd, address: str, sample: Path) -> None:
    install(board.home, "#!/bin/sh\necho Welcome\n")
    link = open_link(address)
    with pytest.raises(LinkError, match="begins with 'Welcome'") as caught:
        link.put_file(sample, soon())
    assert "login shell" in caught.value.hint
    link.close()


def test_two_hosts_send_the_same_at_once(flashed: Sshd, address: str, sample: Path) -> None:
    results: list[str | LinkError] = []

    def send() -> None:
        link = open_link(address)
        try:
            results.append(link.put_file(sample, Deadline.after(60)))
        except LinkError as error:
            results.append(error)
        finally:
            link.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [f"{flashed.home}/store/{digest(sample.read_bytes())}"] * 4
    assert Path(str(results[0])).read_bytes() == sample.read_bytes()
    assert names(flashed.home / "store") == [digest(sample.read_bytes())]


def test_a_full_disk_is_seen_before_and_while_sending(flashed: Sshd, address: str, sample: Path) -> None:
    store = flashed.home / "store"
    with small_disk(store, 2048):
        link = open_link(address)
        with pytest.raises(errors.RemoteDiskFull, match=r"9\.0 MiB are to come, 2\.0 MiB are free") as caught:
            link.put_file(sample, soon())
        assert caught.value.exit_code == 9
        assert names(store) == []
        from edgekit.links.ssh import transfer  # below the look at the disk

        sftp = link.connection.sftp(soon())
        with sample.open("rb") as file, pytest.raises(errors.RemoteDiskFull, match="the board's disk is full"):
            transfer.upload(sftp, file, sample.stat().st_size, f"{store}/x.part", soon(), lambda *_: None)
        assert sftp.stat(str(store), soon()) is not None, "the channel is still good"
        link.close()


def test_a_read_only_board(flashed: Sshd, address: str, sample: Path) -> None:
    store = flashed.home / "store"
    with small_disk(store, 16384):
        remount(store, "ro")
        link = open_link(address)
        with pytest.raises(errors.RemoteReadOnly, match="Read-only"):
            link.put_file(sample, soon())
        link.close()


def test_a_folder_of_somebody_else(start: Start, me: Path, tmp_path: Path, sample: Path) -> None:
    """root may write everywhere, so the server that is asked says no instead."""
    server = start("board", "Subsystem sftp internal-sftp -P mkdir,write")
    know(me, server)
    with Connection(f"ssh://127.0.0.1:{server.port}") as connection, pytest.raises(errors.RemotePermission):
        connection.sftp(soon()).make_folders(str(tmp_path / "new" / "folder"), soon())
    assert sample.exists()


# Files from the board


def test_a_file_comes_back_whole(link: SshLink, sample: Path, tmp_path: Path) -> None:
    seen: list[Moved] = []
    link.progress = seen.append
    target = tmp_path / "back" / "sample"
    target.parent.mkdir()
    link.get_file(str(sample), target, soon())
    assert target.read_bytes() == sample.read_bytes()
    assert names(target.parent) == ["sample"]
    assert seen[-1] == Moved("sample", sample.stat().st_size, sample.stat().st_size)
    (tmp_path / "empty").touch()
    link.get_file(str(tmp_path / "empty"), target, soon())
    assert target.read_bytes() == b""


def test_a_missing_file_is_named(link: SshLink, tmp_path: Path) -> None:
    with pytest.raises(errors.RemoteMissing, match="no such file"):
        link.get_file(str(tmp_path / "nothing"), tmp_path / "x", soon())
    assert not (tmp_path / "x").exists()


def test_a_download_goes_on_where_it_was_cut(flashed: Sshd, proxy: Proxy, through: str, sample: Path, tmp_path: Path) -> None:
    del flashed
    folder = tmp_path / "back"
    folder.mkdir()
    (folder / "sample").write_text("older")

    def cut(moved: Moved) -> None:
        if moved.done > 2 * MIB:
            proxy.cut()

    link = open_link(through, progress=cut)
    with pytest.raises(errors.ConnectionLost):
        link.get_file(str(sample), folder / "sample", soon())
    link.close()
    assert (folder / "sample").read_text() == "older"
    (part,) = folder.glob(".sample.*.part")
    there = part.stat().st_size
    assert there > 2 * MIB
    seen: list[Moved] = []
    link = open_link(through, progress=seen.append)
    link.get_file(str(sample), folder / "sample", soon())
    assert seen[0].done >= there
    assert (folder / "sample").read_bytes() == sample.read_bytes()
    assert names(folder) == ["sample"]
    link.close()


def test_where_files_of_the_board_lie(link: SshLink, flashed: Sshd, tmp_path: Path) -> None:
    path = link.board_path(tmp_path / "run-7" / "checkpoint.ekc")
    assert path == f"{flashed.home}/work/run-7/checkpoint.ekc"
    Path(path).write_bytes(b"written by the runner")  # the folder is there


def test_no_secret_is_in_a_process_list(flashed: Sshd, me: Path, address: str) -> None:
    """What runs here and on the board while a link is open."""
    del flashed
    secret = "correct-horse-battery"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", secret, "-f", str(me / ".ssh" / "id_ed25519")], check=True)
    link = SshLink(Connection(address, asking=lambda _: secret))
    Client(link).info()
    lines = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    link.close()
    assert "edgekit-runner attach" in lines
    assert secret not in lines
