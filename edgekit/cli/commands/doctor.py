"""``edgekit doctor``"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.console import Console
from rich.status import Status

from edgekit.cli.output import json_option, plain, report, stderr
from edgekit.doctor import CHECKS, Check, Finding, board_checks, examine
from edgekit.links.ssh.secrets import ask

_MARKS = {"ok": "[green]✓[/]", "failed": "[red]✗[/]", "skipped": "[yellow]-[/]"}


@click.command("doctor")
@click.argument("device", required=False)
@json_option
@click.pass_context
def command(context: click.Context, device: str | None) -> None:
    """Check that this machine can compile and train; with DEVICE, the whole way to it. The exit code is 1 if anything fails."""
    findings = []
    with stderr().status("checking") as status, _checks(device, status) as checks:
        for finding in examine(checks):
            findings.append(finding)
            status.update(f"checked {finding.name}")
    healthy = all(finding.outcome != "failed" for finding in findings)
    facts = {"device": device, "healthy": healthy, "checks": [asdict(f) for f in findings]}
    report(facts, lambda console: _draw(console, findings))
    context.exit(0 if healthy else 1)


@contextlib.contextmanager
def _checks(device: str | None, status: Status) -> Iterator[tuple[Check, ...]]:
    if device is None:
        yield CHECKS
        return

    def asking(question: str) -> str | None:
        status.stop()  # it would draw over the question
        try:
            return ask(question)
        finally:
            status.start()

    with board_checks(device, asking) as checks:
        yield checks


def _draw(console: Console, findings: list[Finding]) -> None:
    for f in findings:
        console.print(f"{_MARKS[f.outcome]} {f.name:16} {plain(f.detail or f.cause)}", soft_wrap=True)
        if f.next:
            console.print(f"  {'':16} next: {plain(f.next)}", soft_wrap=True)
