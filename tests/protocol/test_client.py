"""The client against an SMP peer over a real pipe: good answers, bad answers, none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import DeviceError, LinkError
from edgekit.links import LinkTimeout, LocalLink
from edgekit.protocol import Client, client

PEER = Path(__file__).parent / "peer.py"


@contextlib.contextmanager
def talking(mode: str) -> Iterator[Client]:
    link = LocalLink([sys.executable, str(PEER), mode])
    try:
        yield Client(link)
    finally:
        link.close()


@pytest.mark.parametrize("mode", ["good", "bytewise", "stale", "newer"])
def test_the_answer_is_found(mode: str) -> None:
    with talking(mode) as c:
        assert [c.echo(text) for text in ("a", "", "é" * 500)] == ["a", "", "é" * 500]


def test_sequence_numbers_wrap() -> None:
    with talking("good") as c:
        assert [c.echo(str(i)) for i in range(600)] == [str(i) for i in range(600)]


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("noise", LinkError, "no SMP response: b'Welcome"),
        ("no map", LinkError, "no CBOR map"),
        ("no cbor", LinkError, "no CBOR"),
        ("other keys", DeviceError, "does not fit: r"),
        ("busy", DeviceError, r"a session runs \(BUSY\)"),
        ("unknown status", DeviceError, "status 999"),
        ("smp error", DeviceError, "ENOTSUP"),
        ("odd error", DeviceError, "cannot be read"),
        ("dies", LinkError, "SIGABRT(.|\n)*assertion failed: x > 0"),
    ],
)
def test_a_bad_answer_is_a_clear_error(mode: str, error: type[Exception], words: str) -> None:
    with talking(mode) as c, pytest.raises(error, match=words):
        c.echo("hello")


def test_no_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SECONDS", 0.2)
    with talking("silent") as c, pytest.raises(LinkTimeout, match=r"0\.2 s"):
        c._ask(client.EchoWriteRequest(d="x"), client.m.Echo, 0.2)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next() -> None:
    with talking("slow") as c:
        with pytest.raises(LinkTimeout):
            c._ask(client.EchoWriteRequest(d="first"), client.m.Echo, 0.1)
        assert c.echo("second") == "second"


def test_an_interrupt_waits_for_the_end_of_an_exchange() -> None:
    with talking("slow") as c:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            c.echo("interrupted")
        assert time.monotonic() - start > 0.4
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert c.echo("after") == "after"


def test_an_interrupt_is_not_lost_in_an_error() -> None:
    with talking("silent") as c:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt) as caught:
            c._ask(client.EchoWriteRequest(d="x"), client.m.Echo, 0.3)
        assert isinstance(caught.value.__context__, LinkTimeout)


def test_a_second_interrupt_ends_a_dead_exchange() -> None:
    with talking("silent") as c:
        for delay in (0.2, 0.4):
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            c.echo("x")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_client_works_outside_the_main_thread() -> None:
    with talking("good") as c:
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(c.echo("thread")))
        thread.start()
        thread.join()
        assert answers == ["thread"]


def test_importing_the_protocol_does_not_import_torch() -> None:
    code = "import sys, edgekit.protocol, edgekit.sessions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
