"""The doctor: every check gives a result, whatever happens in it."""

from __future__ import annotations

import pytest

from edgekit import doctor
from edgekit.doctor import Check, examine
from edgekit.errors import LinkError
from tests.support.command import Run, document


def good() -> str:
    return "fine"


def fails() -> str:
    raise LinkError("no runner", "build it")


def crashes() -> str:
    raise ZeroDivisionError("oops")


def test_each_outcome_has_its_words() -> None:
    needy = (Check("d", good, ("a", "b", "c")), Check("e", good, ("d",)))
    a, b, c, d, e = examine((Check("a", good), Check("b", fails), Check("c", crashes), *needy))
    assert (a.outcome, a.detail, a.cause) == ("ok", "fine", "")
    assert (b.outcome, b.cause, b.next) == ("failed", "no runner", "build it")
    assert c.outcome == "failed"
    assert "ZeroDivisionError: oops" in c.cause
    assert c.next
    assert (d.outcome, d.cause) == ("skipped", "needs b, c")
    assert e.outcome == "skipped"


def test_a_healthy_machine(edgekit: Run) -> None:
    code, out, _ = edgekit("doctor", "--json")
    result = document(out)
    bad = [check for check in result["checks"] if check["outcome"] != "ok"]
    assert bad == []
    assert result["healthy"]
    assert code == 0
    assert len(result["checks"]) == len(doctor.CHECKS)


def test_a_broken_runner_fails_with_its_cause(edgekit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_RUNNER", "/bin/false")
    code, out, _ = edgekit("doctor")
    assert code == 1
    assert "exit code 1" in out
    assert "needs runner start" in out
