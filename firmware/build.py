"""Compiles the C programs of this folder for a target, with the compiler of the ``ziglang`` wheel, once per content.

A kernel source of ``backends/cpu/`` is compiled once for each instruction set of the target (``-DEK_ISA=<name>`` and the
set's flags); ``table.c``, which lists the sets, and everything else is compiled once. A microcontroller's own sources in
``backends/cortex_m/`` take the place of those of the same name.

    python -m edgekit.firmware.build runner x86_64-linux
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as _version
from importlib.util import find_spec
from pathlib import Path

from edgekit.errors import EdgekitError, InputError
from edgekit.files import cache_root, locked, write_atomic

FIRMWARE = Path(__file__).resolve().parent
CPU = FIRMWARE.parent / "backends" / "cpu"  # beside each other in the repository and in the installed package
CORTEX_M = CPU.parent / "cortex_m"
LIBC = FIRMWARE / "cortex_m" / "libc"
INCLUDES = (FIRMWARE / "core", FIRMWARE / "posix", CPU)

#: Called as each file is done: files done, files in all, what was done.
Progress = Callable[[int, int, str], None]


class BuildError(EdgekitError):
    """The C compiler failed, or is not there."""


@dataclass(frozen=True)
class Isa:
    """An instruction set that the kernels are compiled for; ``flags`` as clang and gcc take them.

    ``only``: the kernel sources that gain by it; the set's other kernels are those of a lesser set (``backends/cpu/table.c``).
    """

    name: str
    flags: tuple[str, ...]
    optimization: str = "-O3"
    only: tuple[str, ...] = ()  # in an order: what is made is found again by the digest of this

    def has(self, source: Path) -> bool:
        """Whether a kernel source is compiled for it."""
        return not self.only or source.stem in self.only


@dataclass(frozen=True)
class Target:
    """A processor and operating system, and how its programs are made.

    ``compilers`` are tried in order; "zig" is the wheel's. ``flags`` go to the compiler and to the linker,
    ``link`` only to the linker. ``optimization`` takes the place of the instruction sets' own. ``own`` has kernel sources that
    take the place of those of the same name in ``backends/cpu/``. ``port`` is the folder below ``ports/`` of a microcontroller,
    which has no operating system and no C library.
    """

    name: str
    isas: tuple[Isa, ...]
    compilers: tuple[str, ...] = ("zig",)
    flags: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    optimization: str = ""
    own: Path | None = None
    port: str = ""
    memory: str = "memory.ld"  #: of the port


@dataclass(frozen=True)
class Job:
    """One object file to make: the compiler's arguments without its output."""

    label: str
    arguments: tuple[str, ...]


_PRODUCTS_OF_BYTES = ("q_conv2d", "q_dense")
_X86 = (
    Isa("avx512_vnni", ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"), only=_PRODUCTS_OF_BYTES),
    Isa("avx2_vnni", ("-march=x86-64-v3", "-mavxvnni"), only=_PRODUCTS_OF_BYTES),
    Isa("avx512", ("-march=x86-64-v4", "-mprefer-vector-width=512")),
    Isa("avx2", ("-march=x86-64-v3",)),
    Isa("plain", ("-march=x86-64",), "-Os"),  # for processors of before 2013: small rather than fast
)
_SMALL = ("-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables")
_STATIC = ("-O2", "-static", "-s", "-Wl,--gc-sections")  # -O2: zig links its sanitizer's runtime without it
_BARE = ("-target", "thumb-freestanding-eabihf", "-Werror", "-ffreestanding", "-fno-builtin-printf", *_SMALL)
#: Pages as small as a slot may be aligned: on a larger one the linker would begin what is loaded with the ELF file's own headers.
_BARE_LINK = ("-O2", "-static", "-Wl,--gc-sections", "-Wl,-z,max-page-size=512")
_SMALL_TABLES = ("-DEK_PATH_BYTES=192", "-DEK_RECORDS=64")
_M7 = "-DEK_M7"
_REGISTERS = "-fomit-frame-pointer"  #: one more for kernels, some of which take all
_SANITIZE = ("-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")

TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("x86_64-linux", _X86, flags=("-target", "x86_64-linux-musl", "-Werror", *_SMALL), link=_STATIC),
        Target(
            "aarch64-linux",
            (Isa("neon_dotprod", ("-mcpu=cortex_a76",), only=_PRODUCTS_OF_BYTES), Isa("neon", ("-mcpu=cortex_a72",))),
            flags=("-target", "aarch64-linux-musl", "-Werror", *_SMALL),
            link=_STATIC,
        ),
        Target(
            "aarch64-macos",
            (Isa("neon", ("-mcpu=apple_m1",)),),
            flags=("-target", "aarch64-macos", "-Werror", *_SMALL),
            link=("-s", "-Wl,-dead_strip"),
        ),
        Target(
            "mps2-an500",
            (Isa("m7", ("-mcpu=cortex_m7+fp_armv8d16", _REGISTERS), "-O2"),),
            flags=(*_BARE, _M7, "-DEK_PATH_BYTES=192", "-DEK_RECORDS=1024"),
            link=_BARE_LINK,
            own=CORTEX_M,
            port="mps2_an500",
        ),
        # 1 MB of flash for two slots: 390 KB at -Os, 520 at -O2
        Target(
            "mps2-an500-f746",
            (Isa("m7", ("-mcpu=cortex_m7+fp_armv8d16sp", _REGISTERS), "-O2"),),
            flags=(*_BARE, _M7, *_SMALL_TABLES),
            link=_BARE_LINK,
            own=CORTEX_M,
            port="mps2_an500",
            memory="memory_f746.ld",
        ),
        Target(
            "stm32f746-discovery",
            (Isa("m7", ("-mcpu=cortex_m7+fp_armv8d16sp", _REGISTERS)),),
            flags=(*_BARE, _M7, *_SMALL_TABLES),
            link=_BARE_LINK,
            own=CORTEX_M,
            port="stm32f746_discovery",
            optimization="-Os",
        ),
        # A microcontroller's kernels where tests can run them: with an Arm processor's instructions, and with twins in C.
        Target(
            "arm-linux-m7",
            (Isa("m7", ("-mcpu=cortex_a7-neon", "-mthumb", _REGISTERS), "-O2"),),
            flags=("-target", "arm-linux-musleabihf", "-Werror", _M7, *_SMALL),
            link=_STATIC,
            own=CORTEX_M,
        ),
        Target(
            "x86_64-linux-m7",
            (Isa("m7", ("-march=x86-64",), "-O2"),),
            flags=("-target", "x86_64-linux-musl", "-Werror", _M7, *_SMALL),
            link=_STATIC,
            own=CORTEX_M,
        ),
        Target(
            "x86_64-linux-m7-asan",
            (Isa("m7", ("-march=x86-64",)),),
            ("clang", "gcc"),
            flags=("-Wno-psabi", "-ffunction-sections", _M7, *_SANITIZE, "-fsanitize=address,undefined"),
            link=("-Wl,--gc-sections",),  # what nothing calls, Winograd's kernels, calls what is not there
            optimization="-O1",
            own=CORTEX_M,
        ),
        # zig has no AddressSanitizer runtime, so these two take the system's compiler. Optimizing the unrolled tiles with all
        # their checks takes it minutes.
        Target(
            "x86_64-linux-asan",
            _X86,
            ("clang", "gcc"),
            flags=("-Wno-psabi", *_SANITIZE, "-fsanitize=address,undefined"),
            optimization="-O0",
        ),
        Target(
            "x86_64-linux-fuzz",
            _X86,
            ("clang",),
            flags=(*_SANITIZE, "-DEK_FUZZING", "-fsanitize=fuzzer,address,undefined"),
            optimization="-O0",
        ),
    )
}

#: Sources that wait for memory, run once, or say themselves how to vectorise what is hot: small rather than fast.
_COMPACT = {
    "check_ops": ("-Oz",),
    "dropout": ("-Os", "-fno-vectorize"),
    "loss": ("-Os",),
    "unary": ("-Os",),
    "update": ("-O3", "-fno-unroll-loops"),
    "shape": ("-Oz", "-fno-vectorize"),
}

#: Programs that run no ops; the kernels are part of every other.
WITHOUT_KERNELS = frozenset({"bootloader", "fuzz_smp", "fuzz_npy", "fuzz_shard", "fuzz_serial"})

#: Programs of microcontrollers; all others need an operating system.
BARE = frozenset({"firmware", "bootloader", "steps"})

#: … of which these two begin where the processor does, in no slot.
AT_RESET = frozenset({"bootloader", "steps"})

#: Bytes before a firmware's first one in its slot: its image's header, and what aligns its vectors.
IMAGE_HEADER = 512
_KEY_SOURCE = "key.c"  #: knows the public key that images are signed with
_NOBODY = bytes(32)

#: Sources of a program, as globs below this folder; those of a microcontroller's port come with its target.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "runner": ("core/*.c", "posix/*.c", "runner/*.c"),
    "firmware": ("core/*.c", "runner/*.c", "serial/*.c", "boot/*.c", "cortex_m/*.c", "cortex_m/libc/*.c"),
    "bootloader": (
        *("core/sha256*.c", "runner/crc32.c", "boot/*.c", "bootloader/*.c"),
        *("cortex_m/flash.c", "cortex_m/libc/strings.c"),
    ),
    "steps": (
        *("core/*.c", "runner/crc32.c", "cortex_m/libc/*.c", "tools/steps.c"),
        *(f"cortex_m/{name}.c" for name in ("startup", "fault", "clock", "pool")),
    ),
    "serial_board": (
        *("core/*.c", "runner/*.c", "serial/*.c", "boot/*.c"),
        *(f"cortex_m/{name}.c" for name in ("store", "programs", "pool")),
        "tools/serial_board.c",
    ),
    "run_once": ("core/*.c", "posix/pool.c", "tools/run_once.c"),
    "verify": ("core/*.c", "posix/pool.c", "fuzz/fuzz_program.c", "tools/verify.c"),
    "fuzz_program": ("core/*.c", "posix/pool.c", "fuzz/fuzz_program.c"),
    "fuzz_smp": ("core/*.c", "posix/pool.c", "runner/*.c", "fuzz/fuzz_smp.c"),
    "fuzz_shard": ("core/*.c", "posix/pool.c", "runner/*.c", "fuzz/fuzz_shard.c"),
    "fuzz_serial": (
        *("core/*.c", "runner/*.c", "serial/*.c", "boot/*.c"),
        *(f"cortex_m/{name}.c" for name in ("store", "programs", "pool")),
        "fuzz/fuzz_serial.c",
    ),
    "fuzz_npy": ("core/*.c", "posix/pool.c", "runner/npy.c", "fuzz/fuzz_npy.c"),
}

_LIBRARIES = ("-lm", "-pthread")
_EMPTY_PROGRAM = str(FIRMWARE / "tools" / "empty.c")
#: The options of `zig build-exe` for which zig keeps the same C library as for `zig cc` with ours, which takes no -j.
_C_LIBRARY = ("-OReleaseFast", "-fstrip", "-fno-unwind-tables", "--gc-sections", "-lc", f"-j{3 * (os.cpu_count() or 1)}")

_COMMON = ("-std=gnu11", "-Wall", "-Wextra", "-fno-math-errno", "-ffp-contract=fast")


def build(
    program: str,
    target: str,
    progress: Progress | None = None,
    executor: Executor | None = None,
    *,
    slot: int = 0,
    key: bytes = _NOBODY,
    resident: Path | None = None,
) -> Path:
    """The executable of ``program`` (a key of PROGRAMS) for ``target`` (a key of TARGETS).

    It is made on the first call and lies in the cache after that (the folder EDGEKIT_CACHE, else the user's cache folder),
    under the digest of all that it is made from. ``executor`` runs the compilers: one thread a core by default.
    A microcontroller's firmware is linked for one of its two slots; it and the bootloader take images that ``key`` (an Ed25519
    public key, 32 bytes) has signed, by default none.
    ``resident`` is a Program that becomes part of the image (``steps``).

    Raises:
        InputError: the program or the target is unknown.
        BuildError: the compiler is missing or failed; the message has its output.
    """
    if program not in PROGRAMS:
        raise InputError(f"unknown firmware program {program!r}", hint=f"One of: {', '.join(PROGRAMS)}.")
    if target not in TARGETS:
        raise InputError(f"unknown firmware target {target!r}", hint=f"One of: {', '.join(TARGETS)}.")
    to = TARGETS[target]
    if bool(to.port) != (program in BARE):
        raise InputError(
            f"{program} is no program for {target}", hint=f"{', '.join(sorted(BARE))} are for microcontrollers alone."
        )
    compiler, version = _compiler(to)
    jobs = [*_jobs(program, to, key), *([] if resident is None else [_resident_job(to, resident)])]
    keys = _object_keys(jobs, version)
    script = _script(to, program, slot)
    result = cache_folder() / "programs" / _digest(version, to, program, *keys, script) / program
    if result.exists():
        return result
    result.parent.mkdir(parents=True, exist_ok=True)
    with locked(result.parent / "lock"):
        if not result.exists():
            _make(compiler, version, jobs, keys, to, script, result, progress or _silent, executor)
    return result


def cache_folder() -> Path:
    """Where built programs and their objects are kept."""
    return cache_root() / "firmware"


def _jobs(program: str, target: Target, key: bytes) -> list[Job]:
    ports = (f"ports/{target.port}/*.c",) if target.port else ()
    sources = [path for glob in (*PROGRAMS[program], *ports) for path in sorted(FIRMWARE.glob(glob))]
    includes = (f"-I{folder}" for folder in ((FIRMWARE / "core", LIBC, CPU) if target.port else INCLUDES))
    system = () if target.port else ("-pthread",)
    common = (*_COMMON, *system, *target.flags, *includes, f'-DEK_VERSION="{_version("edgekit")}"')
    baseline = target.isas[-1].flags
    if program not in WITHOUT_KERNELS:
        sources.append(CPU / "table.c")
    jobs = []
    for path in sources:
        own = (f"-DEK_IMAGE_KEY={','.join(map(str, key))}",) if path.name == _KEY_SOURCE else ()
        jobs.append(
            Job(path.name, (*common, *own, *_optimization(target, path, "-O2"), *_zig(target, baseline), "-c", str(path)))
        )
    for path in _kernels(target) if program not in WITHOUT_KERNELS else ():
        for isa in (isa for isa in target.isas if isa.has(path)):
            flags = (
                *common,
                *_optimization(target, path, isa.optimization),
                *_zig(target, isa.flags),
                f"-DEK_ISA={isa.name}",
                "-c",
                str(path),
            )
            jobs.append(Job(f"{path.name} ({isa.name})", flags))
    return jobs


def _resident_job(target: Target, program: Path) -> Job:
    """The object that holds a Program's bytes, read-only."""
    content = _read(program)
    folder = cache_folder() / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{hashlib.sha256(content).hexdigest()[:40]}.ekp"
    write_atomic(copy, content)
    source = copy.with_suffix(".S")
    ends = ("ek_resident_start", f'.incbin "{copy}"'), ("ek_resident_end", "")
    labels = "".join(f".global {name}\n{name}: {then}\n" for name, then in ends)
    write_atomic(source, f'.section .rodata.ek_resident, "a"\n.balign 64\n{labels}'.encode())
    return Job(program.name, (*target.flags, *_zig(target, target.isas[-1].flags), "-c", str(source)))


def _kernels(target: Target) -> list[Path]:
    """The kernels' sources but for the table of the sets."""
    folders = (CPU, *([target.own] if target.own else ()))
    found = {path.name: path for folder in folders for path in folder.glob("*.c") if path.name != "table.c"}
    return [found[name] for name in sorted(found)]


def _optimization(target: Target, source: Path, usual: str) -> tuple[str, ...]:
    if target.optimization:
        return (target.optimization,)
    return (usual,) if source.parent == CORTEX_M else _COMPACT.get(source.stem, (usual,))


def _zig(target: Target, flags: tuple[str, ...]) -> tuple[str, ...]:
    """The instruction set's flags in zig's spelling: -mcpu=x86_64_v4+avx512vnni for -march=x86-64-v4 -mavx512vnni."""
    if target.compilers != ("zig",) or not flags[0].startswith("-march="):
        return flags
    added = [f for f in flags if f.startswith("-mavx")]
    processor = "-mcpu=" + flags[0].removeprefix("-march=").replace("-", "_")
    return ("+".join([processor, *(f.removeprefix("-m") for f in added)]), *(f for f in flags[1:] if f not in added))


def _compiler(target: Target) -> tuple[tuple[str, ...], str]:
    """The command that compiles for a target, and what tells this version of it from others."""
    for name in target.compilers:
        if name == "zig":
            return (_zig_command(), "cc"), "zig " + _version("ziglang")
        if path := shutil.which(name):
            return (path,), subprocess.run((path, "--version"), capture_output=True, text=True, check=True).stdout
    names = " or ".join(target.compilers)
    raise BuildError(f"{target.name} needs {names}, not installed", hint="On Debian: apt install clang libclang-rt-14-dev")


def _zig_command() -> str:
    """The wheel's executable; `python -m ziglang` takes a tenth of a second more for each file."""
    wheel = find_spec("ziglang")
    if wheel is None or wheel.origin is None:
        raise BuildError("the compiler is not installed", hint="pip install ziglang")
    return str(Path(wheel.origin).parent / "zig")


def _object_keys(jobs: list[Job], version: str) -> list[str]:
    """The digest of what each object is made from: the compiler, the command, the source and all headers."""
    sources = [Path(job.arguments[-1]) for job in jobs]
    headers = sorted({h for folder in {*INCLUDES, *(s.parent for s in sources)} for h in folder.glob("*.h")})
    contents = {path: _read(path) for path in {*headers, *sources}}
    shared = _digest(version, *((str(h), contents[h]) for h in headers))
    return [_digest(shared, job.arguments, contents[source]) for job, source in zip(jobs, sources, strict=True)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BuildError(f"cannot read the firmware source {path}: {error.strerror}", hint="Install edgekit again.") from error


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def _make(
    compiler: tuple[str, ...],
    version: str,
    jobs: list[Job],
    keys: list[str],
    target: Target,
    script: bytes,
    result: Path,
    progress: Progress,
    executor: Executor | None,
) -> None:
    """Compile the objects that the cache lacks, at the same time, and link."""
    folder = cache_folder() / "objects"
    folder.mkdir(exist_ok=True)
    objects = [folder / f"{key}.o" for key in keys]
    work = [(job.label, (*compiler, *job.arguments), path) for job, path in zip(jobs, objects, strict=True) if not path.exists()]
    link = (*compiler, *target.flags, *target.link)
    empty = folder / f"{_digest(version, link)}.empty"
    if work and target.compilers == ("zig",) and not target.port and not empty.exists():
        # zig compiles its C library for a target at the first link, a thousand files, by default one at a time on two cores.
        work.insert(0, ("C library", (compiler[0], "build-exe", *target.flags[:2], *_C_LIBRARY, _EMPTY_PROGRAM), empty))
    with _workers(executor) as pool:
        futures = {pool.submit(_run, *item): item[0] for item in work}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress(done, len(work) + 1, futures[future])
        finally:
            for future in futures:
                future.cancel()
    _run(result.name, (*link, *map(str, objects), *_libraries(target, script)), result)
    progress(len(work) + 1, len(work) + 1, result.name)


def _libraries(target: Target, script: bytes) -> tuple[str, ...]:
    """What is linked behind the objects; for a microcontroller, where things go in its memory."""
    if not target.port:
        return _LIBRARIES
    path = cache_folder() / "objects" / f"{hashlib.sha256(script).hexdigest()[:40]}.ld"
    write_atomic(path, script)
    return (*target.isas[-1].flags, f"-Wl,-T,{path}")


def _script(target: Target, program: str, slot: int) -> bytes:
    """The linker's script: the port's memory, this program's part of it, and where things go. Empty where there is an operating
    system."""
    if not target.port:
        return b""
    region, header = ("BOOT", 0) if program in AT_RESET else (f"SLOT{slot}", IMAGE_HEADER)
    own = f'REGION_ALIAS("FLASH", {region})\nek_running_slot = {slot};\nek_header_bytes = {header};\n'.encode()
    return _read(FIRMWARE / "ports" / target.port / target.memory) + own + _read(FIRMWARE / "cortex_m" / "sections.ld")


def _run(label: str, command: tuple[str, ...], output: Path) -> None:
    """Run the compiler. ``output`` appears whole or not at all, whoever else makes it at the same time."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".making-") as folder:
        unfinished = Path(folder) / output.name
        where = (f"-femit-bin={unfinished}",) if "build-exe" in command else ("-o", str(unfinished))
        done = subprocess.run((*command, *where), capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise BuildError(f"compiling {label} failed (exit code {done.returncode}):\n{said}\ncommand: {' '.join(command)}")
        unfinished.replace(output)


@contextmanager
def _workers(executor: Executor | None) -> Iterator[Executor]:
    """The caller's executor, which stays open, or one of our own."""
    if executor is not None:
        yield executor
        return
    with ThreadPoolExecutor(os.cpu_count() or 1) as own:
        yield own


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what


def main() -> None:
    """Build argv[1] for argv[2] and print the executable's path."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: python -m edgekit.firmware.build {{{','.join(PROGRAMS)}}} {{{','.join(TARGETS)}}}")
    try:
        print(build(sys.argv[1], sys.argv[2], lambda done, total, what: print(f"[{done}/{total}] {what}", file=sys.stderr)))
    except EdgekitError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
