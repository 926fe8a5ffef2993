"""Every place where boards are looked for, one after the other; a place that cannot be searched is a note."""

from __future__ import annotations

from edgekit.devices import KnownDevice, load_devices
from edgekit.discovery import mdns, usb
from edgekit.discovery.found import Found, Search
from edgekit.errors import EdgekitError
from edgekit.virtual import virtual_boards

SECONDS = 3.0


def search(seconds: float = SECONDS) -> Search:
    """Look everywhere; the network is listened to for ``seconds``.

    Raises:
        InputError, StorageError: the list of named devices cannot be read.
    """
    found = [_named(device) for device in load_devices().values()]
    notes: list[str] = []
    for look in (_virtual, lambda: mdns.search(seconds), usb.search):
        part = look()
        known = {device.address for device in found}
        found += [device for device in part.found if device.address not in known]  # a running virtual board has its name, too
        notes += part.notes
    return Search(tuple(found), tuple(notes))


def _named(device: KnownDevice) -> Found:
    facts = {"identity": device.identity, "board": device.board}
    return Found("named", device.name, device.address, _link(device.address), facts)


def _link(address: str) -> str | None:
    return {"ssh": "ssh", "serial": "serial", "socket": "serial"}.get(address.partition(":")[0])


def _virtual() -> Search:
    try:
        running = [board for board in virtual_boards() if board.pid is not None]
    except EdgekitError as error:
        return Search((), (f"virtual boards: {error.message}",))
    return Search(tuple(Found("virtual", b.name, b.address, _link(b.address), {"process": str(b.pid)}) for b in running), ())
