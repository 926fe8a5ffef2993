"""The build: its cache, its errors, two builders at once. Its sources here are small ones of the test's own."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from edgekit.firmware import build as module
from edgekit.firmware.build import IMAGE_HEADER, BuildError, build

from edgekit.errors import InputError
from edgekit.mcuboot.elf import flat


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A firmware folder with one program and a kernel folder beside it; an empty cache."""
    for folder in ("core", "posix", "tools", "cpu"):
        (tmp_path / folder).mkdir()
    (tmp_path / "core" / "answer.h").write_text("int answer(void);\n#define ANSWER 42\n")
    (tmp_path / "core" / "answer.c").write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    main = '#include <stdio.h>\n#include "answer.h"\nextern const char *const names[];\n'
    main += 'int main(void) { for (int i = 0; names[i]; i++) printf("%s ", names[i]); printf("%d", answer()); return 0; }\n'
    (tmp_path / "tools" / "run_once.c").write_text(main)
    kernel = "#define PASTE_(a, b) a##_##b\n#define PASTE(a, b) PASTE_(a, b)\n#define TEXT_(x) #x\n#define TEXT(x) TEXT_(x)\n"
    kernel += "extern const char *const PASTE(name, EK_ISA);\nconst char *const PASTE(name, EK_ISA) = TEXT(EK_ISA);\n"
    (tmp_path / "cpu" / "kernel.c").write_text(kernel)
    table = "extern const char name_text[];\nextern const char *const names[];\n"
    table += 'const char *const names[] = {"kernels", 0};\n'
    (tmp_path / "cpu" / "table.c").write_text(table)
    monkeypatch.setattr(module, "FIRMWARE", tmp_path)
    monkeypatch.setattr(module, "CPU", tmp_path / "cpu")
    monkeypatch.setattr(module, "INCLUDES", (tmp_path / "core", tmp_path / "posix", tmp_path / "cpu"))
    monkeypatch.setitem(module.PROGRAMS, "run_once", ("core/*.c", "tools/run_once.c"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def output(program: Path) -> str:
    return subprocess.run((program,), capture_output=True, text=True, check=True).stdout


def test_builds_once_for_one_content(sources: Path) -> None:
    compiled: list[str] = []

    def progress(done: int, total: int, what: str) -> None:
        assert 1 <= done <= total
        compiled.append(what)

    first = build("run_once", "x86_64-linux", progress)
    assert output(first) == "kernels 42"
    isas = {f"kernel.c ({isa})" for isa in ("avx512", "avx2", "plain")}
    assert set(compiled) == {"answer.c", "run_once.c", "table.c", "run_once", "C library", *isas}

    compiled.clear()
    assert build("run_once", "x86_64-linux", progress) == first
    assert compiled == []

    header = sources / "core" / "answer.h"
    header.write_text(header.read_text().replace("42", "43"))
    second = build("run_once", "x86_64-linux", progress)
    assert second != first
    assert (output(first), output(second)) == ("kernels 42", "kernels 43")

    compiled.clear()
    (sources / "tools" / "run_once.c").write_text("int main(void) { return 0; }\n")
    build("run_once", "x86_64-linux", progress)
    assert compiled == ["run_once.c", "run_once"]  # nothing else had changed


def test_two_builders_at_once(sources: Path) -> None:
    """Both get the same whole program, whatever order their sets of words are in, and nothing unfinished stays."""
    command = "import sys; from tests.firmware.test_build import build_elsewhere; build_elsewhere(sys.argv[1])"
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda seed: _in_process(command, sources, seed), (1, 2)))
    assert results[0] == results[1]
    assert output(Path(results[0])) == "kernels 42"
    assert not list((sources / "cache").rglob(".making-*"))


def build_elsewhere(folder: str) -> None:
    """What the other process of test_two_builders_at_once does."""
    root = Path(folder)
    module.FIRMWARE, module.CPU = root, root / "cpu"
    module.INCLUDES = (root / "core", root / "posix", root / "cpu")
    module.PROGRAMS["run_once"] = ("core/*.c", "tools/run_once.c")
    print(build("run_once", "x86_64-linux"))


def _in_process(command: str, sources: Path, seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        (sys.executable, "-c", command, str(sources)), capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_compiler_errors_are_shown(sources: Path) -> None:
    (sources / "core" / "answer.c").write_text("int answer(void) { return nothing; }\n")
    with pytest.raises(BuildError, match=r"(?s)answer\.c failed.*undeclared identifier 'nothing'.*command: "):
        build("run_once", "x86_64-linux")
    assert not list((sources / "cache").rglob("run_once"))
    assert not list((sources / "cache").rglob(".making-*"))


@pytest.mark.usefixtures("sources")
def test_unknown_names_and_missing_sources(sources: Path) -> None:
    with pytest.raises(InputError, match=r"program 'walk'[\s\S]*runner"):
        build("walk", "x86_64-linux")
    with pytest.raises(InputError, match=r"target 'z80'[\s\S]*aarch64-linux"):
        build("run_once", "z80")
    (sources / "cpu" / "table.c").unlink()
    with pytest.raises(BuildError, match=r"cannot read the firmware source .*table\.c"):
        build("run_once", "x86_64-linux")


@pytest.mark.usefixtures("sources")
def test_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match="needs clang"):
        build("run_once", "x86_64-linux-fuzz")


def test_runner_is_small() -> None:
    """The real runner: static, stripped, under 1 MB, for every Linux board."""
    for target in ("x86_64-linux", "aarch64-linux"):
        assert build("runner", target).stat().st_size < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(name for name, target in module.TARGETS.items() if target.port))
def test_the_firmware_of_every_port_links_within_its_memory(target: str) -> None:
    """The linker refuses what does not fit; vectors come first, and nothing of a C library or a heap is in it. Both slots take
    it, and the bootloader is small."""
    for slot in (0, 1):
        elf = build("firmware", target, slot=slot).read_bytes()
        assert b"ek_reset" in elf
        assert not any(name in elf for name in (b"\0malloc\0", b"\0free\0", b"\0_sbrk\0", b"\0printf\0"))
        address, program = flat(elf)
        stack, reset = struct.unpack_from("<II", program, IMAGE_HEADER)
        assert address == origin(target, f"SLOT{slot}")
        assert stack >> 28 == 2, "in RAM"
        assert address < reset < address + len(program)
    address, bootloader = flat(build("bootloader", target).read_bytes())
    assert address == origin(target, "BOOT")
    assert len(bootloader) < 16 * 1024


def origin(target: str, region: str) -> int:
    """Where a region of a port's memory begins."""
    script = (module.FIRMWARE / "ports" / module.TARGETS[target].port / "memory.ld").read_text()
    found = re.search(rf"{region} \(\w+\) : ORIGIN = (\w+)", script)
    assert found is not None
    return int(found[1], 0)


def test_a_program_is_for_one_kind_of_target() -> None:
    with pytest.raises(InputError, match="runner is no program for mps2-an500"):
        build("runner", "mps2-an500")
    with pytest.raises(InputError, match="firmware is no program for x86_64-linux"):
        build("firmware", "x86_64-linux")
