"""The parts of the core that only C can reach (core_test.c), under the address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgekit.firmware.build import FIRMWARE

from tests.firmware.samples import training_program

HERE = Path(__file__).parent


def compile_test(folder: Path, sanitizers: str) -> Path:
    """core_test with a fake backend in place of the kernels."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None and sanitizers != "undefined":
        pytest.skip("no clang or gcc with sanitizers here")
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    sources = [*sorted((FIRMWARE / "core").glob("*.c")), FIRMWARE / "posix" / "pool.c", HERE / "core_test.c"]
    flags = [
        "-std=gnu11",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        f"-fsanitize={sanitizers}",
        "-fno-sanitize-recover=all",
    ]
    includes = [f"-I{FIRMWARE / folder}" for folder in ("core", "posix")]
    executable = folder / "core_test"
    subprocess.run([*command, "-pthread", *flags, *includes, *map(str, sources), "-lm", "-o", str(executable)], check=True)
    return executable


@pytest.fixture(scope="module")
def core_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    system = shutil.which("clang") or shutil.which("gcc")
    return compile_test(tmp_path_factory.mktemp("core"), "address,undefined" if system else "undefined")


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
    run(compile_test(tmp_path, "thread"), "pool")
