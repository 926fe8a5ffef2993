"""The initramfs packer: byte by byte, and as the cpio tool reads it."""

from __future__ import annotations

import random
import stat
import subprocess
from pathlib import Path

from edgekit.virtual.cpio import character_device, file, folder, link, pack
from tests.virtual.conftest import need

TRAILER = b"070701" + b"0" * 32 + b"00000001" + b"0" * 48 + b"0000000b" + b"0" * 8 + b"TRAILER!!!\0" + b"\0" * 3


def test_one_file_is_this_archive() -> None:
    fields = (
        "00000001 000081a4 00000000 00000000 00000001 00000000 00000003 00000000 00000000 00000000 00000000 00000002 00000000"
    )
    header = b"070701" + fields.replace(" ", "").encode()
    assert pack([file("a", b"xyz")]) == header + b"a\0" + b"xyz\0" + TRAILER


def test_the_order_of_entries_changes_nothing() -> None:
    entries = [file(f"f/{i}", bytes(i)) for i in range(20)]
    first = pack(entries)
    random.Random(0).shuffle(entries)
    assert pack(entries) == first


def test_the_cpio_tool_reads_what_was_packed(tmp_path: Path) -> None:
    need("cpio")
    awkward = {f"deep/er/{size}": bytes(range(256)) * 9 for size in range(5)} | {f"n{'a' * n}": b"b" * n for n in range(9)}
    entries = [file(path, data[: len(data) - i]) for i, (path, data) in enumerate(awkward.items())]
    entries += [file("script", b"old", 0o644), file("script", b"#!", 0o755), link("link", "deep/er"), folder("private", 0o700)]
    subprocess.run(["cpio", "-id", "--quiet"], input=pack(entries), cwd=tmp_path, check=True)
    for entry in entries[:-4]:
        assert (tmp_path / entry.path).read_bytes() == entry.data
    assert (tmp_path / "script").read_bytes() == b"#!"
    assert stat.S_IMODE((tmp_path / "script").stat().st_mode) == 0o755
    assert (tmp_path / "link").readlink() == Path("deep/er")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700


def test_a_device_node_has_its_numbers(tmp_path: Path) -> None:
    need("cpio")
    said = subprocess.run(
        ["cpio", "-tv", "--quiet"],
        input=pack([character_device("dev/console", 5, 1)]),
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    folder_line, node_line = said.stdout.decode().splitlines()
    assert folder_line.startswith("drwxr-xr-x")
    assert node_line.startswith("crw-------")
    assert "5,   1" in node_line
