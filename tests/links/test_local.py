"""The local link with real processes: what comes through, and each way it breaks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import InputError, LinkError
from edgekit.links import Deadline, LinkTimeout, LocalLink, open_link

ECHO = "import os\nwhile data := os.read(0, 4096): os.write(1, data)"


def python(code: str) -> LocalLink:
    return LocalLink([sys.executable, "-c", code])


@pytest.fixture
def echo() -> Iterator[LocalLink]:
    link = python(ECHO)
    yield link
    link.close()


def receive(link: LocalLink, count: int) -> bytes:
    data, deadline = b"", Deadline.after(10)
    while len(data) < count:
        data += link.receive(deadline)
    return data


def test_bytes_go_there_and_back(echo: LocalLink) -> None:
    data = bytes(range(256)) * 16
    echo.send(data, Deadline.after(10))
    assert receive(echo, len(data)) == data


def test_a_silent_runner_is_a_timeout(echo: LocalLink) -> None:
    start = time.monotonic()
    with pytest.raises(LinkTimeout, match=r"0\.2 s"):
        echo.receive(Deadline.after(0.2))
    assert time.monotonic() - start < 2


def test_a_runner_that_does_not_read_is_a_timeout() -> None:
    link = python("import time; time.sleep(60)")
    try:
        with pytest.raises(LinkTimeout):
            link.send(bytes(1 << 20), Deadline.after(0.3))
    finally:
        link._process.kill()
        link.close()


def test_a_missing_runner_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no-such-runner cannot be started: No such file") as caught:
        LocalLink([str(tmp_path / "no-such-runner")])
    assert "doctor" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('out of memory')", "exit code 1.*\nout of memory"),
        ("import os, sys; print('bad op', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)", "signal SIGSEGV.*\nbad op"),
        ("pass", "exit code 0\n"),
    ],
)
def test_a_runner_that_dies_leaves_its_last_words(code: str, words: str) -> None:
    link = python(code)
    with pytest.raises(LinkError, match=words) as caught:
        link.receive(Deadline.after(10))
    assert not isinstance(caught.value, LinkTimeout)
    link._process.wait()
    with pytest.raises(LinkError, match="ended"):
        link.send(b"x", Deadline.after(10))
    link.close()


def test_a_long_log_shows_its_end() -> None:
    link = python("import sys; sys.stderr.write('x' * 300_000 + ' the end'); sys.exit(3)")
    with pytest.raises(LinkError, match="the end") as caught:
        link.receive(Deadline.after(10))
    assert len(str(caught.value)) < 3000
    link.close()


def test_closing_ends_the_runner_and_can_be_repeated(echo: LocalLink) -> None:
    echo.close()
    echo.close()
    assert echo._process.poll() == 0
    with pytest.raises(LinkError, match="closed"):
        echo.send(b"x", Deadline.after(1))
    with pytest.raises(LinkError, match="closed"):
        echo.receive(Deadline.after(1))


def test_closing_forces_a_runner_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.links.local._GRACE", 0.2)
    link = python("import time; time.sleep(60)")
    link.close()
    assert link._process.poll() == -9


def test_files_are_shared(echo: LocalLink, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"data")
    remote = echo.put_file(source, Deadline.after(1))
    echo.get_file(remote, tmp_path / "b", Deadline.after(1))
    echo.get_file(remote, source, Deadline.after(1))
    assert (tmp_path / "b").read_bytes() == source.read_bytes() == b"data"
    with pytest.raises(LinkError, match="no file"):
        echo.get_file(str(tmp_path / "c"), tmp_path / "d", Deadline.after(1))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("address", ["ble://kitchen", "kitchen", "", "local://x"])
def test_an_address_without_a_link_names_those_there_are(address: str) -> None:
    with pytest.raises(InputError, match="local"):
        open_link(address)
