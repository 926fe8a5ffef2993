"""A short run of the libFuzzer target over the sample Programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from edgekit.firmware.build import build

from tests.firmware import corpus


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang with libFuzzer")
def test_fuzz_program(tmp_path: Path) -> None:
    target = build("fuzz_program", "x86_64-linux-fuzz")
    new, seeds = tmp_path / "new", tmp_path / "seeds"
    new.mkdir()
    corpus.write(seeds)
    limits = ("-max_total_time=40", "-max_len=8192", "-timeout=20", "-seed=1")
    report = (f"-artifact_prefix={tmp_path}/", "-print_final_stats=1")
    done = subprocess.run((target, *limits, *report, new, seeds), capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stderr[-8000:]
    assert "stat::number_of_executed_units" in done.stderr
