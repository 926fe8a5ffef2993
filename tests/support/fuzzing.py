"""Runs a libFuzzer target for a moment, or for ``EDGEKIT_FUZZ_SECONDS``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from edgekit.firmware.build import build

SECONDS = os.environ.get("EDGEKIT_FUZZ_SECONDS")


def fuzz(program: str, seeds: Path, max_len: int, seconds: int = 4) -> None:
    """From the files in ``seeds``; what it reached goes to stdout (`pytest -s` shows it)."""
    target = build(program, "x86_64-linux-fuzz")
    new = seeds.parent / f"{seeds.name}-new"
    new.mkdir()
    longest = int(SECONDS or seconds)
    limits = [f"-max_total_time={longest}", "-seed=1", f"-max_len={max_len}", "-timeout=20"]
    report = [f"-artifact_prefix={seeds.parent}/", "-print_final_stats=1"]
    command = [str(target), *limits, *report, str(new), str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=longest + 260)
    assert done.returncode == 0, done.stderr[-8000:]
    told = [line for line in done.stderr.splitlines() if "DONE" in line or "Loaded 1 modules" in line or "::number" in line]
    assert any("number_of_executed_units" in line for line in told)
    print(program, *told, sep="\n  ")
