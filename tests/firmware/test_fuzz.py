"""A short run of the libFuzzer target over the sample Programs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.firmware import corpus
from tests.support.fuzzing import fuzz


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang with libFuzzer")
def test_fuzz_program(tmp_path: Path) -> None:
    corpus.write(tmp_path / "seeds")
    fuzz("fuzz_program", tmp_path / "seeds", max_len=8192, seconds=40)
