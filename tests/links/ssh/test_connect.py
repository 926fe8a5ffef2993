"""Every way in which a connection does not come about, each with its own error, in bounded time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.errors import InputError
from edgekit.links import Deadline, LinkTimeout, open_link
from edgekit.links.ssh import Connection, errors
from edgekit.links.ssh.address import resolve
from edgekit.links.ssh.connect import connect
from edgekit.links.ssh.trust import ask_for_key, check_fingerprint
from tests.support.boards import Start, know
from tests.support.proxy import Proxy
from tests.support.sshd import Sshd, free_port, make_key


def nobody(question: str) -> str | None:
    del question
    return None


def attempt(address: str, seconds: float = 10.0) -> None:
    Connection(address, Deadline.after(seconds), nobody).close()


def test_a_known_board_lets_a_key_in(address: str) -> None:
    with Connection(address, asking=nobody) as connection:
        done = connection.run(["printf", "%s", "two words"], Deadline.after(10))
        assert (done.code, done.out, done.err) == (0, "two words", "")
        failed = connection.run("echo out; echo bad >&2; exit 7", Deadline.after(10))
        assert (failed.code, failed.out, failed.err) == (7, "out\n", "bad\n")
        assert connection.alive
    assert not connection.alive


def test_the_home_folder_is_the_boards_own(board: Sshd, address: str) -> None:
    with Connection(address) as connection:
        assert connection.home(Deadline.after(10)) == str(board.home)


def test_a_name_without_address(me: Path) -> None:
    del me
    with pytest.raises(errors.NameNotResolved, match=r"no-such-board\.invalid") as caught:
        attempt("ssh://no-such-board.invalid")
    assert "ping" in caught.value.hint


def test_nothing_listens(me: Path) -> None:
    del me
    with pytest.raises(errors.Refused, match="refuses") as caught:
        attempt(f"ssh://127.0.0.1:{free_port()}")
    assert "edgekit virtual start" in caught.value.hint
    with pytest.raises(errors.Refused, match="refuses") as caught:
        attempt(f"ssh://127.0.0.2:{free_port()}")
    assert "systemctl" in caught.value.hint


def test_a_black_hole_is_unreachable(me: Path) -> None:
    """A listener whose queue is full drops what comes, as a firewall does."""
    import socket

    del me
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        port = hole.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        start = time.monotonic()
        with pytest.raises(errors.Unreachable, match=r"does not answer within 0\.5 s"):
            attempt(f"ssh://127.0.0.1:{port}", 0.5)
        assert time.monotonic() - start < 5
        for filler in fillers:
            filler.close()


def test_a_server_that_says_nothing_is_a_timeout(proxy: Proxy, through: str) -> None:
    proxy.deaf = True
    start = time.monotonic()
    with pytest.raises(LinkTimeout, match=r"says nothing.*0\.5 s"):
        attempt(through, 0.5)
    assert time.monotonic() - start < 5


def test_a_server_that_drips_is_a_timeout(proxy: Proxy, through: str) -> None:
    proxy.trickle = 0.2
    start = time.monotonic()
    with pytest.raises(LinkTimeout):
        attempt(through, 1.0)
    assert time.monotonic() - start < 5


def test_another_protocol_is_no_ssh(me: Path) -> None:
    import socket
    import threading

    del me
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        client.sendall(b"220 mail.example ESMTP\r\n" * 200)
        client.close()

    threading.Thread(target=serve, daemon=True).start()
    with listener, pytest.raises(errors.NotSsh, match="no SSH server"):
        attempt(f"ssh://127.0.0.1:{listener.getsockname()[1]}")


def test_an_unknown_host_is_refused_with_the_command_that_enrols_it(stranger: Sshd, me: Path) -> None:
    del me
    url = f"ssh://127.0.0.1:{stranger.port}"
    with pytest.raises(errors.UnknownHostKey) as caught:
        attempt(url)
    assert stranger.fingerprint in caught.value.message
    assert f"edgekit trust {url}" in caught.value.hint
    assert "Accepted" not in stranger.log.read_text(), "the login must not be tried before the host is known"


def test_a_changed_host_key_is_refused_with_an_explanation(stranger: Sshd, me: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    (me / ".ssh" / "known_hosts").write_text(f"# comment\n\n{stranger.known_name} {other[0]} {other[1]}\n")
    with pytest.raises(errors.ChangedHostKey) as caught:
        attempt(f"ssh://127.0.0.1:{stranger.port}")
    assert stranger.fingerprint in caught.value.message
    assert f"{me}/.ssh/known_hosts:3" in caught.value.message
    assert "reads along" in caught.value.message
    assert f"ssh-keygen -R '{stranger.known_name}'" in caught.value.hint
    assert "Accepted" not in stranger.log.read_text()


def test_a_revoked_host_key_is_refused(board: Sshd, me: Path, address: str) -> None:
    with (me / ".ssh" / "known_hosts").open("a") as file:
        file.write(f"@revoked * {board.public_key}\n")
    with pytest.raises(errors.ChangedHostKey, match="revoked"):
        attempt(address)


@pytest.mark.parametrize("form", ["hashed", "pattern", "negated", "several"])
def test_known_hosts_lines_of_every_form(stranger: Sshd, me: Path, form: str) -> None:
    file = me / ".ssh" / "known_hosts"
    name = {"pattern": "[127.*]:*", "negated": f"[127.*]:*,!{stranger.known_name}", "several": f"board,{stranger.known_name}"}
    file.write_text(f"{name.get(form, stranger.known_name)} {stranger.public_key}\n")
    if form == "hashed":
        subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
        assert "|1|" in file.read_text()
    if form == "negated":
        with pytest.raises(errors.UnknownHostKey):
            attempt(f"ssh://127.0.0.1:{stranger.port}")
    else:
        attempt(f"ssh://127.0.0.1:{stranger.port}")


def test_the_known_kind_of_key_is_asked_for(start: Start, me: Path, tmp_path: Path) -> None:
    """A host with two keys, of which the user knows the one that would not be chosen by itself."""
    second = make_key(tmp_path / "second", kind="ecdsa")
    server = start("board", f"HostKey {second}")
    public = " ".join(second.with_suffix(".pub").read_text().split()[:2])
    (me / ".ssh" / "known_hosts").write_text(f"{server.known_name} {public}\n")
    attempt(f"ssh://127.0.0.1:{server.port}")


def test_enrolling_lets_in_and_a_wrong_fingerprint_does_not(stranger: Sshd, me: Path, tmp_path: Path) -> None:
    del me
    url = f"ssh://127.0.0.1:{stranger.port}"
    offer = ask_for_key(url)
    assert (offer.known, offer.changed, offer.fingerprint) == (False, "", stranger.fingerprint)
    with pytest.raises(errors.ChangedHostKey, match="not SHA256:abc"):
        check_fingerprint(offer, "SHA256:abc")
    with pytest.raises(InputError, match="no fingerprint"):
        check_fingerprint(offer, "abc")
    check_fingerprint(offer, stranger.fingerprint)
    assert offer.enrol() == tmp_path / "config" / "known_hosts"
    attempt(url)
    assert ask_for_key(url).known


def test_a_wrong_key_is_named_in_the_error(board: Sshd, me: Path, address: str) -> None:
    for path in (me / ".ssh" / "id_ed25519", me / ".ssh" / "id_ed25519.pub"):
        path.unlink()
    make_key(me / ".ssh" / "id_ed25519")
    with pytest.raises(errors.AuthenticationFailed, match="id_ed25519") as caught:
        attempt(address)
    assert f"ssh-copy-id -p {board.port}" in caught.value.hint
    assert caught.value.exit_code == 11


def test_no_key_at_all(me: Path, address: str) -> None:
    (me / ".ssh" / "id_ed25519").unlink()
    with pytest.raises(errors.AuthenticationFailed, match="no password"):
        attempt(address)


def test_a_passphrase_is_asked_for_and_never_shown(board: Sshd, me: Path, address: str, caplog: pytest.LogCaptureFixture) -> None:
    del board
    secret = "correct horse battery"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", secret, "-f", str(me / ".ssh" / "id_ed25519")], check=True)
    caplog.set_level("DEBUG")
    with pytest.raises(errors.AuthenticationFailed, match="needs its passphrase: `ssh-add") as silent:
        attempt(address)
    with pytest.raises(errors.AuthenticationFailed, match="wrong passphrase") as wrong:
        Connection(address, asking=lambda _: "wrong horse")
    Connection(address, asking=lambda _: secret).close()
    body = "".join((me / ".ssh" / "id_ed25519").read_text().split()[5:-5])[:40]
    for text in (caplog.text, str(silent.value), str(wrong.value), repr(wrong.value.__cause__)):
        assert secret not in text
        assert "wrong horse" not in text
        assert body not in text


def test_no_terminal_means_no_question(me: Path, address: str) -> None:
    """A whole process with standard input closed: it must end by itself."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(me / ".ssh" / "id_ed25519")], check=True)
    code = f"from edgekit.links.ssh import Connection; Connection({address!r})"
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "AuthenticationFailed" in done.stderr
    assert "passphrase of" not in done.stdout + done.stderr


def test_an_agents_key(board: Sshd, me: Path, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del board
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(me / ".ssh" / "id_ed25519")], check=True, capture_output=True)
        (me / ".ssh" / "id_ed25519").unlink()
        attempt(address)
    finally:
        agent.terminate()
        agent.wait()


def test_the_configuration_names_host_port_user_key_and_alias(board: Sshd, me: Path) -> None:
    (me / ".ssh" / "id_ed25519").rename(me / ".ssh" / "board-key")
    (me / ".ssh" / "known_hosts").write_text(f"the-kitchen {board.public_key}\n")
    (me / ".ssh" / "config").write_text(
        f"Host Kitchen\n  HostName 127.0.0.1\n  Port {board.port}\n  User root\n  IdentityFile ~/.ssh/board-key\n"
        "  HostKeyAlias the-kitchen\n"
    )
    attempt("ssh://Kitchen")


def test_a_jump_host(start: Start, board: Sshd, me: Path) -> None:
    jump = start("jump")
    (me / ".ssh" / "config").write_text(
        f"Host *\n  HostName 127.0.0.1\nHost far\n  Port {board.port}\n  ProxyJump near\nHost near\n  Port {jump.port}\n"
    )
    with pytest.raises(errors.UnknownHostKey, match="near"):
        attempt("ssh://far")
    know(me, jump)
    with Connection("ssh://far") as connection:
        assert connection.run("echo $SSH_CONNECTION", Deadline.after(10)).code == 0
    assert "Accepted publickey" in jump.log.read_text()
    board.stop()
    with pytest.raises(errors.Refused, match="jump host"):
        attempt("ssh://far")


def test_a_proxy_command_is_not_run(me: Path, tmp_path: Path) -> None:
    (me / ".ssh" / "config").write_text(f"Host far\n  ProxyCommand touch {tmp_path}/ran\n")
    with pytest.raises(InputError, match="ProxyJump"):
        attempt("ssh://far")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "address",
    ["ssh://", "ssh://user@", "ssh://host:0x16", "ssh://host:99999", "ssh://host/path", "ssh://-oProxyCommand=x", "ssh://a b"],
)
def test_addresses_that_are_none(address: str, me: Path) -> None:
    del me
    with pytest.raises(InputError):
        resolve(address)


def test_a_password_in_an_address_is_refused_and_not_repeated(me: Path) -> None:
    del me
    with pytest.raises(InputError) as caught:
        open_link("ssh://pi:raspberry@kitchen")
    assert "raspberry" not in str(caught.value)


def test_addresses(me: Path) -> None:
    (me / ".ssh" / "config").write_text("Host *\n  User fallback\n")
    six = resolve("ssh://pi@[fe80::1]:2222")
    assert (six.user, six.host, six.port, six.known_as) == ("pi", "fe80::1", 2222, "[fe80::1]:2222")
    plain = resolve("ssh://Board.local")
    assert (plain.user, plain.host, plain.port, plain.known_as) == ("fallback", "Board.local", 22, "board.local")


def test_a_broken_configuration_is_named(me: Path) -> None:
    (me / ".ssh" / "config").write_text("Host x\n  ???\n")
    with pytest.raises(InputError, match=r"\.ssh/config"):
        resolve("ssh://x")


def test_too_many_keys(start: Start, me: Path) -> None:
    server = start("board", "MaxAuthTries 1")
    know(me, server)
    (me / ".ssh" / "id_ed25519").rename(me / ".ssh" / "id_rsa")
    make_key(me / ".ssh" / "id_ed25519")
    with pytest.raises(errors.AuthenticationFailed, match="id_ed25519"):
        attempt(f"ssh://127.0.0.1:{server.port}")


def test_a_connection_that_breaks_is_lost(proxy: Proxy, through: str) -> None:
    with Connection(through) as connection:
        proxy.cut()
        with pytest.raises(errors.ConnectionLost):
            connection.run("true", Deadline.after(10))


def test_a_command_that_takes_too_long(address: str) -> None:
    with Connection(address) as connection:
        start = time.monotonic()
        with pytest.raises(LinkTimeout):
            connection.run("sleep 60", Deadline.after(0.3))
        assert time.monotonic() - start < 5


def test_without_sftp(start: Start, me: Path) -> None:
    server = start("board", "Subsystem nothing /bin/false")
    know(me, server)
    with Connection(f"ssh://127.0.0.1:{server.port}") as connection, pytest.raises(errors.NoSftp, match="SFTP"):
        connection.sftp(Deadline.after(10))
    broken = start("broken", "Subsystem sftp /bin/false")
    know(me, broken)
    with Connection(f"ssh://127.0.0.1:{broken.port}") as connection, pytest.raises(errors.NoSftp, match="SFTP"):
        connection.sftp(Deadline.after(10))


def test_a_deadline_is_for_the_whole_way(proxy: Proxy, through: str) -> None:
    proxy.delay = 0.3
    start = time.monotonic()
    with pytest.raises(LinkTimeout):
        connect(resolve(through), nobody, Deadline.after(1.0))
    assert time.monotonic() - start < 6
