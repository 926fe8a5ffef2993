"""The parts of the core that only C can reach (core_test.c), under the address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from edgekit.firmware.build import FIRMWARE

from tests.firmware.samples import training_program
from tests.firmware.tools import compile_test

HERE = Path(__file__).parent


def compiled(folder: Path, sanitizers: str) -> Path:
    """With a fake backend in place of the kernels."""
    if not (shutil.which("clang") or shutil.which("gcc")) and sanitizers != "undefined":
        pytest.skip("no clang or gcc with sanitizers here")
    sources = [*sorted((FIRMWARE / "core").glob("*.c")), FIRMWARE / "posix" / "pool.c"]
    includes = [f"-I{FIRMWARE / folder}" for folder in ("core", "posix")]
    return compile_test("core_test", sources, folder, "-pthread", *includes, sanitizers=sanitizers)


@pytest.fixture(scope="module")
def core_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    system = shutil.which("clang") or shutil.which("gcc")
    return compiled(tmp_path_factory.mktemp("core"), "address,undefined" if system else "undefined")


def run(*command: Path | str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("section", ["sha256", "error", "pool"])
def test_section(core_test: Path, section: str) -> None:
    run(core_test, section)


@pytest.mark.parametrize("section", ["executor", "limits"])
def test_with_program(core_test: Path, section: str, tmp_path: Path) -> None:
    program = tmp_path / "program.ekp"
    program.write_bytes(training_program().data)
    run(core_test, section, program)


def test_pool_has_no_races(tmp_path: Path) -> None:
    run(compiled(tmp_path, "thread"), "pool")
