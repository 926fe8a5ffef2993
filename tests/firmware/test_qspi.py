"""The STM32F746-Discovery's QSPI driver against a model of the peripheral and of the chip: no test of this project has the board."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from edgekit.firmware.build import FIRMWARE

from tests.firmware.tools import compile_test

DRIVER = FIRMWARE / "ports" / "stm32f746_discovery" / "qspi.c"


def test_the_driver_does_what_the_flash_asks_for(tmp_path: Path) -> None:
    """qspi_test.c says what the model looks at. Among it: a reset of the processor at each access to a register while it erases and
    writes, failures that the chip tells, and other chips."""
    executable = compile_test("qspi_test", [DRIVER], tmp_path, "-DEK_REGISTER_MODEL", f"-I{FIRMWARE}")
    done = subprocess.run((executable,), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    resets, commands = map(int, re.findall(r"\d+", done.stdout))
    assert resets > 100
    assert commands > 10_000
