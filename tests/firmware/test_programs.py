"""Programs in a microcontroller's flash: two slots, and a power cut at every erase and write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FIRMWARE = HERE.parents[1] / "firmware"
SOURCES = ("core/error.c", "cortex_m/programs.c", "runner/crc32.c")


def test_wherever_the_power_is_cut_programs_are_whole(tmp_path: Path) -> None:
    compiler = shutil.which("clang") or shutil.which("gcc")
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    sanitizers = "address,undefined" if compiler else "undefined"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    flags += ["-DEK_PATH_BYTES=192", f"-I{FIRMWARE}"]
    sources = [str(FIRMWARE / name) for name in SOURCES]
    executable = tmp_path / "programs_test"
    subprocess.run([*command, *flags, *sources, str(HERE / "programs_test.c"), "-o", str(executable)], check=True)
    done = subprocess.run((executable,), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 400
