"""`edgekit trust` and `edgekit flash` as a user runs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekit.firmware.build import build

from edgekit.links import native_target
from tests.support.command import Run, document
from tests.support.sshd import Sshd


def test_from_a_stranger_to_a_flashed_board(edgekit: Run, stranger: Sshd, me: Path, tmp_path: Path) -> None:
    del me
    url = f"ssh://127.0.0.1:{stranger.port}"
    file = build("runner", native_target())
    release = hashlib.sha256(file.read_bytes()).hexdigest()

    code, out, _ = edgekit("flash", url, "--runner", str(file), "--json")
    assert (code, document(out)["error"]["kind"]) == (10, "UnknownHostKey")
    code, _, err = edgekit("trust", url)  # standard input is no terminal
    assert code == 2
    assert stranger.fingerprint in err
    assert not (tmp_path / "config" / "known_hosts").exists()
    assert edgekit("trust", url, "--fingerprint", "SHA256:wrong")[0] == 10
    code, out, _ = edgekit("trust", url, "--fingerprint", stranger.fingerprint, "--json")
    assert (code, document(out)["fingerprint"]) == (0, stranger.fingerprint)

    code, out, _ = edgekit("flash", url, "--runner", str(file), "--dry-run", "--json")
    plan = document(out)
    assert code == 0
    assert [step["step"] for step in plan["steps"]] == ["upload", "verify", "trial", "reset", "switch", "health", "prune"]
    assert plan["board"]["home"] == str(stranger.home)
    assert not stranger.home.exists()
    code, drawn, _ = edgekit("flash", url, "--runner", str(file), "--dry-run")
    assert all(step["text"] in drawn for step in plan["steps"])

    code, out, err = edgekit("flash", url, "--runner", str(file), "--json")
    assert code == 0, err
    result = document(out)
    assert result["plan"]["steps"] == plan["steps"]
    assert (result["result"]["release"], result["result"]["previous"]) == (release, None)
    assert all(step["text"] in err for step in plan["steps"])
    assert edgekit("flash", url, "--rollback")[0] == 2


def test_a_board_that_lets_nobody_in(edgekit: Run, address: str, me: Path) -> None:
    (me / ".ssh" / "id_ed25519").unlink()
    code, out, err = edgekit("flash", address, "--json")
    assert (code, document(out)["error"]["kind"]) == (11, "AuthenticationFailed")
    assert "ssh-copy-id" in err
    assert "Traceback" not in err


def test_an_address_of_another_kind(edgekit: Run, me: Path) -> None:
    del me
    assert edgekit("flash", "local")[0] == 2
    assert edgekit("trust", "pi@kitchen")[0] == 2
