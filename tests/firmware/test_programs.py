"""Programs in a microcontroller's flash: two slots, and a power cut at every erase and write."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgekit.firmware.build import FIRMWARE

from tests.firmware.tools import compile_test


def test_wherever_the_power_is_cut_programs_are_whole(tmp_path: Path) -> None:
    sources = [FIRMWARE / name for name in ("core/error.c", "cortex_m/programs.c", "runner/crc32.c")]
    executable = compile_test("programs_test", sources, tmp_path, "-DEK_PATH_BYTES=192", f"-I{FIRMWARE}")
    done = subprocess.run((executable,), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 400
