"""Whether a data set goes to a board as a whole, or comes in shards while the board trains."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from edgekit.errors import StorageError
from edgekit.program import Program
from edgekit.protocol import Client
from edgekit.sessions.data import CheckedData
from edgekit.sessions.room import Room
from edgekit.sessions.shards import SPOOL, Shards, Spool

log = logging.getLogger("edgekit")

_SPARE = 8 << 20  #: bytes that stay free for records, logs and whatever else the board writes


@dataclass(frozen=True)
class Streaming:
    """A data set in shards, and how many of them lie on the board."""

    shards: Shards
    spool: Spool


def choose(
    client: Client,
    disk: Room | None,
    data: CheckedData,
    program: Program,
    entry: str,
    stream: bool | None,
    most: int | None,
) -> Streaming | None:
    """How a data set is streamed; None where it goes to the board as a whole.

    Args:
        disk: the board's, where edgekit may clear up; None: what is free is all there is.
        stream: whether; None: where it does not fit into the board's free space, but some shards do.
        most: bytes of shards on the board at a time.

    Raises:
        InputError: ``most`` is too small for two shards.
        StorageError: it is to be streamed, and not even the least spool fits.
    """
    if stream is False:
        return None
    room = _room(client, disk, data, program)
    if stream is None and (room is None or _fits(client, data, room)):
        return None
    shards = Shards(data, program, entry)
    least = shards.least
    if room is not None and room < least:
        if stream is None:
            return None  # nothing helps: the disk's own error says what is missing
        raise StorageError(
            f"{client.link.name}: two shards of one step take {_size(least)}, and {_size(max(0, room))} may be used",
            "free some space on the board",
        )
    spool = shards.spool(_limit(least, room, most))
    why = "" if stream or room is None else f" does not fit on the board ({_size(room)} may be used): it"
    log.warning(
        "the data set (%s)%s is streamed in shards, at most %s of them on the board at a time; keep this computer connected",
        _size(data.bytes), why, _size(spool.bytes),
    )  # fmt: skip
    if disk is not None:
        disk.make(spool.bytes, "the shards")
    return Streaming(shards, spool)


def _limit(least: int, room: int | None, most: int | None) -> int:
    """Bytes that the spool gets: what the user grants, else a moderate part of what there is."""
    if room is None:
        return max(least, SPOOL) if most is None else most
    return max(least, min(SPOOL, room // 2)) if most is None else min(most, room)


def _room(client: Client, disk: Room | None, data: CheckedData, program: Program) -> int | None:
    """Bytes that a data set may take on the board; None where it is this machine, or the board does not tell."""
    info = client.info()
    if info.disk is None:
        return None
    beside = 2 * program.header.state_bytes + min(_SPARE, info.disk // 8)  # a checkpoint, and the next one that takes its place
    if disk is None or (disk.budget is None and data.bytes + beside <= info.disk):
        return info.disk - beside
    if data.folder is not None:
        client.missing(data.folder)  # what is there of it counts as used, and stays
    return disk.available(info.disk) - beside


def _fits(client: Client, data: CheckedData, room: int) -> bool:
    if data.bytes <= room:
        return True
    return data.folder is not None and client.missing(data.folder) <= room


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 1 << 20 else f"{size / 2**10:.1f} KiB"
