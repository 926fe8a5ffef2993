"""The devices that the user has given a name: ``devices.toml`` in the configuration folder.

    [devices.kitchen]
    address = "ssh://pi@192.168.1.20"   # as edgekit's commands take it
    identity = "~/.ssh/kitchen"         # optional: the private key to log in with
    board = "raspberry-pi-4b"           # optional: its profile
    budget = "8 GiB"                    # optional: the most that edgekit may take of its disk

The user may edit the file: what edgekit does not change stays as it is, comments included.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ByteSize, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from edgekit.board import config_folder
from edgekit.errors import InputError
from edgekit.files import locked, storage_errors, write_atomic

_SIZE = TypeAdapter(ByteSize)
_HEADER = re.compile(r"\s*\[")  # begins a table, or an array of tables


class KnownDevice(BaseModel):
    """One named device.

    Attributes:
        address: ``ssh://user@host:port``, ``serial:…``; as commands take a DEVICE.
        identity: file of the private key to log in with; None: whatever SSH finds.
        board: id of its profile; None: found out from the device.
        budget: the most that edgekit may take of its disk, as text (``8 GiB``); None: a share of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")  # TOML's bare keys
    address: str = Field(pattern=r"^[a-z][a-z0-9+.-]*:\S+$")
    identity: str | None = None
    board: str | None = None
    budget: str | None = None

    @field_validator("budget")
    @classmethod
    def _is_size(cls, text: str | None) -> str | None:
        if text is not None:
            _SIZE.validate_python(text)
        return text

    @property
    def budget_bytes(self) -> int | None:
        """The budget; None where there is none."""
        return None if self.budget is None else int(_SIZE.validate_python(self.budget))

    @property
    def identity_file(self) -> Path | None:
        """The private key's path."""
        return None if self.identity is None else Path(self.identity).expanduser()


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: ``500 MB``, ``8GiB``.

    Raises:
        InputError: it is no size.
    """
    try:
        return int(_SIZE.validate_python(text))
    except ValidationError as error:
        raise InputError(f"{text!r} is no size", "write it like 500MB or 8GiB") from error


def devices_file() -> Path:
    """Where the list is."""
    return config_folder() / "devices.toml"


def load_devices() -> dict[str, KnownDevice]:
    """All named devices, in the file's order; none where there is no file.

    Raises:
        InputError: the file is no valid list; it names the entry and the key at fault.
        StorageError: it cannot be read.
    """
    return _parse(_read())


def find(address: str) -> KnownDevice | None:
    """The named device that ``address`` means, ``kitchen`` or ``ssh://kitchen``; None where it is none.

    Raises: as ``load_devices`` does.
    """
    return load_devices().get(address.removeprefix("ssh://"))


def full_address(address: str) -> str:
    """The address that ``address`` means: a bare name of a device becomes ``ssh://NAME``, or the address of its other link.

    Raises: as ``load_devices`` does.
    """
    if "://" in address or (device := find(address)) is None:
        return address
    return f"ssh://{address}" if device.address.startswith("ssh://") else device.address


def add(device: KnownDevice) -> None:
    """Add a device, or replace the one of its name.

    Raises:
        InputError: the file is no valid list, or has the entry in a form that edgekit does not edit.
        StorageError: it cannot be written.
    """
    _edit(device.name, device)


def remove(name: str) -> None:
    """Take a device out; one that is not there is no error.

    Raises: as ``add`` does.
    """
    _edit(name, None)


def _edit(name: str, device: KnownDevice | None) -> None:
    path = devices_file()
    with storage_errors(f"cannot use {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".devices.toml.lock")):
        before = _read()
        current = _parse(before).get(name)
        if current == device:
            return
        text = _without(before, name)
        if device is not None:
            text = f"{text.rstrip()}\n\n{_table(device)}".lstrip()
        if _try_parse(text).get(name) != device:
            raise InputError(f"{path}: edgekit cannot edit the entry {name}", f"write it as a table of its own: [devices.{name}]")
        write_atomic(path, text.encode())


def _without(text: str, name: str) -> str:
    """The text without the lines of ``[devices.<name>]``, up to the next table."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if _HEADER.match(line):
            inside = re.match(rf"\s*\[\s*devices\s*\.\s*{re.escape(name)}\s*\]", line) is not None
        if not inside:
            kept.append(line)
    return "".join(kept)


def _table(device: KnownDevice) -> str:
    fields = device.model_dump(exclude={"name"}, exclude_none=True)
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]  # TOML quotes as JSON does
    return "\n".join([f"[devices.{device.name}]", *lines, ""])


def _read() -> str:
    path = devices_file()
    with storage_errors(f"cannot read {path}"):
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no text in UTF-8") from error


def _try_parse(text: str) -> dict[str, KnownDevice]:
    """The devices after an edit; none where the edit broke the file."""
    try:
        return _parse(text)
    except InputError:
        return {}


def _parse(text: str) -> dict[str, KnownDevice]:
    path = devices_file()
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    entries = table.pop("devices", {})
    if table or not isinstance(entries, dict):
        raise InputError(f"{path}: only tables [devices.NAME] belong here, not {', '.join(table) or 'a plain value'}")
    return {name: _device(name, entry) for name, entry in entries.items()}


def _device(name: str, entry: object) -> KnownDevice:
    try:
        return KnownDevice(**{**entry, "name": name}) if isinstance(entry, dict) else KnownDevice.model_validate(entry)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the entry'}: {e['msg']}" for e in error.errors())
        raise InputError(
            f"{devices_file()}: [devices.{name}] is no valid device: {faults}", "docs/boards.md lists the keys"
        ) from error
