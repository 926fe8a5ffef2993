"""``edgekit trust``"""

from __future__ import annotations

import sys

import click

from edgekit.cli.output import json_option, path, plain, report, stderr
from edgekit.errors import InputError
from edgekit.links.ssh.trust import ask_for_key, check_fingerprint


@click.command("trust")
@click.argument("address")
@click.option("--fingerprint", metavar="SHA256:…", help="Enrol only this key, without asking.")
@json_option
def command(address: str, fingerprint: str | None) -> None:
    """Enrol the board at ADDRESS: show its host key's fingerprint, ask, and remember the key."""
    offer = ask_for_key(address)
    if fingerprint is not None:
        check_fingerprint(offer, fingerprint)
    elif not offer.known:
        _ask(address, offer.kind, offer.fingerprint, offer.changed)
    file = None if offer.known else offer.enrol()
    data = {"address": address, "kind": offer.kind, "fingerprint": offer.fingerprint, "file": file and str(file)}
    words = "is enrolled already" if file is None else f"is enrolled in {path(file)}"
    report(data, lambda console: console.print(f"{address}: {offer.kind} {offer.fingerprint} {words}", soft_wrap=True))


def _ask(address: str, kind: str, fingerprint: str, changed: str) -> None:
    console = stderr()
    if changed:
        console.print(f"[bold red]warning:[/] {plain(changed)}", soft_wrap=True)
    console.print(f"{address} shows the host key {kind} {fingerprint}", soft_wrap=True)
    console.print("compare it with what the board prints: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", soft_wrap=True)
    if not sys.stdin.isatty():
        raise InputError(
            f"{address} is not enrolled: standard input is no terminal to ask on",
            f"if the fingerprint is right: `edgekit trust {address} --fingerprint {fingerprint}`",
        )
    if not click.confirm("is that the board's", err=True):
        raise InputError(f"{address} is not enrolled", "ask whoever set the board up for its fingerprint")
