"""Programs in a microcontroller's flash: two slots, a power cut at every erase and write, and pushes that go on after one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edgekit.firmware.build import FIRMWARE

from tests.firmware.tools import compile_test

SOURCES = ("core/error.c", "core/sha256.c", "core/sha256_here.c", "runner/crc32.c", "boot/incoming.c", "cortex_m/programs.c")


def test_wherever_the_power_is_cut_programs_are_whole_and_their_push_goes_on(tmp_path: Path) -> None:
    sources = [FIRMWARE / name for name in SOURCES]
    executable = compile_test("programs_test", sources, tmp_path, "-DEK_PATH_BYTES=192", f"-I{FIRMWARE}")
    done = subprocess.run((executable,), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cuts, resumed = map(int, re.findall(r"\d+", done.stdout))
    assert cuts > 1000
    assert resumed > 10_000
