"""What a check is, and how checks are run: one result after the other, and one that crashes gives a result too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgekit.errors import EdgekitError

Outcome = Literal["ok", "failed", "skipped"]


class NotNow(Exception):
    """Raised by a check that cannot be made now, though nothing is wrong with what it checks; the message says why."""


@dataclass(frozen=True)
class Finding:
    """One check's result. ``cause`` and ``next`` are empty where all is well."""

    name: str
    outcome: Outcome
    detail: str = ""
    cause: str = ""
    next: str = ""


@dataclass(frozen=True)
class Check:
    """A check returns what it found or raises; it is skipped where one that it ``needs`` did not go well."""

    name: str
    run: Callable[[], str]
    needs: tuple[str, ...] = ()


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run the checks, one result after the other."""
    outcomes: dict[str, Outcome] = {}
    for check in checks:
        missing = [name for name in check.needs if outcomes.get(name) != "ok"]
        finding = Finding(check.name, "skipped", cause=f"needs {', '.join(missing)}") if missing else _examine(check)
        outcomes[check.name] = finding.outcome
        yield finding


def _examine(check: Check) -> Finding:
    try:
        return Finding(check.name, "ok", check.run())
    except NotNow as reason:
        return Finding(check.name, "skipped", cause=str(reason))
    except EdgekitError as error:
        return Finding(check.name, "failed", cause=error.message, next=error.hint)
    except Exception as error:  # a check that crashes is a result
        cause = f"the check itself failed: {type(error).__name__}: {error}"
        return Finding(check.name, "failed", cause=cause, next="report this, with the output of `edgekit doctor --json`")
