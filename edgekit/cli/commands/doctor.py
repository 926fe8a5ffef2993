"""``edgekit doctor``"""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console

from edgekit.cli.output import json_option, plain, report, stderr
from edgekit.doctor import Finding, examine

_MARKS = {"ok": "[green]✓[/]", "failed": "[red]✗[/]", "skipped": "[yellow]-[/]"}


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context) -> None:
    """Check that this machine can compile and train. The exit code is 1 if anything fails."""
    findings = []
    with stderr().status("checking") as status:
        for finding in examine():
            findings.append(finding)
            status.update(f"checked {finding.name}")
    healthy = all(finding.outcome == "ok" for finding in findings)
    report({"healthy": healthy, "checks": [asdict(f) for f in findings]}, lambda console: _draw(console, findings))
    context.exit(0 if healthy else 1)


def _draw(console: Console, findings: list[Finding]) -> None:
    for f in findings:
        console.print(f"{_MARKS[f.outcome]} {f.name:16} {plain(f.detail or f.cause)}", soft_wrap=True)
        if f.next:
            console.print(f"  {'':16} next: {plain(f.next)}", soft_wrap=True)
