"""The STM32F746-Discovery's QSPI driver against a model of the peripheral and of the chip: no test has the board."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edgekit.firmware.build import FIRMWARE

from tests.firmware.tools import compile_test

DRIVER = "ports/stm32f746_discovery/qspi.c"
#: What puts Programs into it.
PROGRAMS = ("core/error.c", "core/sha256.c", "core/sha256_here.c", "runner/crc32.c", "boot/incoming.c", "cortex_m/programs.c")


def test_the_driver_does_what_the_flash_asks_for(tmp_path: Path) -> None:
    """qspi_test.c says what the model looks at. It resets the processor at each access to a register while it erases and writes,
    lets the chip tell failures, has other chips, and pushes Programs."""
    sources = [FIRMWARE / name for name in (DRIVER, *PROGRAMS)]
    flags = ("-DEK_REGISTER_MODEL", "-DEK_PATH_BYTES=192", f"-I{FIRMWARE}")
    executable = compile_test("qspi_test", sources, tmp_path, *flags)
    done = subprocess.run((executable,), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    resets, commands = map(int, re.findall(r"\d+", done.stdout))
    assert resets > 100
    assert commands > 10_000
