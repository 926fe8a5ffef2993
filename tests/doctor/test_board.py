"""The doctor before a real sshd: each fault on the way has its own result, and what comes after it is skipped."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from edgekit.devices import KnownDevice, add
from edgekit.doctor import Finding, NotNow, board_checks, examine
from edgekit.doctor.check import Check
from edgekit.sessions import connect
from tests.runner.programs import Classifier, sample_data
from tests.support.boards import Start, flash, know
from tests.support.command import Run, document
from tests.support.disks import names
from tests.support.sshd import Sshd, free_port, make_key


def look(address: str) -> dict[str, Finding]:
    with board_checks(address, lambda _: None) as checks:
        return {finding.name: finding for finding in examine(checks)}


def outcomes(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.outcome for name, finding in found.items()}


def only_failure(found: dict[str, Finding]) -> Finding:
    failed = [finding for finding in found.values() if finding.outcome == "failed"]
    assert len(failed) == 1, failed
    return failed[0]


def end_host(address: str) -> None:
    with connect(address) as device:
        device.client.reset(True)


def test_a_check_that_cannot_be_made_now_is_skipped() -> None:
    def busy() -> str:
        raise NotNow("a session runs")

    (finding,) = examine([Check("a", busy)])
    assert (finding.outcome, finding.cause) == ("skipped", "a session runs")


def test_no_device_of_that_name(me: Path) -> None:
    del me
    fault = only_failure(look("no-such-device"))
    assert fault.name == "address"
    assert "edgekit devices" in fault.next


def test_a_name_without_an_address(me: Path) -> None:
    del me
    assert only_failure(look("ssh://no-such-board.invalid")).name == "address"


def test_nothing_listens(me: Path) -> None:
    del me
    found = look(f"ssh://127.0.0.1:{free_port()}")
    assert only_failure(found).name == "port"
    assert found["login"].outcome == "skipped"


@pytest.mark.slow
def test_a_board_that_does_not_answer_is_given_up_in_time(me: Path) -> None:
    del me
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        start = time.monotonic()
        assert only_failure(look(f"ssh://127.0.0.1:{hole.getsockname()[1]}")).name == "port"
        assert time.monotonic() - start < 30
        for filler in fillers:
            filler.close()


def test_an_unknown_host_key(stranger: Sshd, me: Path) -> None:
    del me
    found = look(f"ssh://127.0.0.1:{stranger.port}")
    fault = only_failure(found)
    assert fault.name == "host key"
    assert "edgekit trust" in fault.next
    assert found["port"].outcome == "ok"
    assert found["login"].cause == "needs host key"
    assert "Accepted" not in stranger.log.read_text()


def test_a_login_that_is_refused(board: Sshd, me: Path, address: str) -> None:
    del board
    for name in ("id_ed25519", "id_ed25519.pub"):
        (me / ".ssh" / name).unlink()
    make_key(me / ".ssh" / "id_ed25519")
    fault = only_failure(look(address))
    assert fault.name == "login"
    assert "ssh-copy-id" in fault.next


def test_a_board_without_a_runner(board: Sshd, address: str) -> None:
    found = look(address)
    fault = only_failure(found)
    assert fault.name == "runner"
    assert "edgekit flash" in fault.next
    assert found["training step"].outcome == "skipped"
    assert found["home folder"].outcome == found["clock"].outcome == "ok"
    assert not board.home.exists(), "the doctor leaves nothing behind"


def test_a_home_that_is_no_folder(board: Sshd, address: str) -> None:
    board.home.write_text("in the way")
    assert look(address)["home folder"].outcome == "failed"


def test_a_wrong_clock_is_told_with_what_follows(start: Start, me: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "date").write_text("#!/bin/sh\necho 86400\n")
    (programs / "date").chmod(0o755)
    server = start("late", f'ForceCommand PATH={programs}:$PATH; export PATH; eval "$SSH_ORIGINAL_COMMAND"')
    know(me, server)
    clock = look(f"ssh://127.0.0.1:{server.port}")["clock"]
    assert clock.outcome == "failed"
    assert "behind ours" in clock.cause
    assert "certificate" in clock.cause


@pytest.mark.slow
def test_all_is_well_after_a_flash_and_a_session_that_runs_is_named(
    board: Sshd, address: str, edgekit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flash(address)
    add(KnownDevice(name="kitchen", address=address, board="generic-x86-64"))
    try:
        code, out, _ = edgekit("doctor", "kitchen", "--json")
        assert [c for c in document(out)["checks"] if c["outcome"] != "ok"] == []
        assert code == 0
        assert list((board.home / "sessions").iterdir()) == []
        sent = names(board.home / "store")
        assert outcomes(look(address))["training step"] == "ok"
        assert names(board.home / "store") == sent, "what is sent is the same each time"
        inputs, targets = sample_data(22)
        with connect(address) as device:
            session = device.train(Classifier().program(), {"inputs": inputs, "targets": targets}, epochs=1_000_000)
            found = look(address)
            assert session.id is not None
            assert session.id in found["session host"].detail
            assert found["training step"].outcome == "skipped"
            assert session.id in found["training step"].cause
            device.sessions.stop()
            session.detach()
    finally:
        end_host(address)
