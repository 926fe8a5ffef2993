"""Cycles of the innermost loops of the Arm kernels on a Cortex-A72 and A76, as llvm-mca's models of their pipelines have them:
``python -m benchmarks.kernels.mca`` (Debian: ``apt install llvm-19``).

Of each function the loop with the most multiply-adds counts. The limit is one 128-bit multiply-add a cycle on an A72, two on an
A76. All loads hit the first-level cache in the model, so this is what a loop's instructions allow, not what memory does. LLVM's
name for an A76 with a model of its own is neoverse-n1 (the server core made of it), from LLVM 17 on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernels.driver import COMMON, ROOT, TARGETS

MCA = ("llvm-mca-19", "llvm-mca")
#: the model's name, and 128-bit multiply-adds a cycle
PROCESSORS = {"Cortex-A72": ("cortex-a72", 1), "Cortex-A76": ("neoverse-n1", 2)}
ITERATIONS = 200
#: sources and the functions whose largest loop counts
KERNELS = {
    "gemm.c": r"ek_dot_8_2$",
    "gemm_outer.c": r"ek_outer_8_2$",
    "depthwise_row.c": r"(sum|weigh)_\d_\d$",
}


@dataclass(frozen=True)
class Loop:
    function: str
    body: str  #: assembly from the loop's label to its branch
    fmas: int


def assembly(source: str) -> str:
    """A kernel source compiled for Arm as the runner has it."""
    options = [o for o in (*COMMON, *TARGETS["neon"]) if o != "-Werror"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernel.s"
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            *options,
            "-Wno-unused-command-line-argument",
            "-g0",
            "-DEK_ISA=neon",
            "-S",
        ]
        subprocess.run([*command, "-o", str(out), str(ROOT / "backends" / "cpu" / source)], check=True)
        return out.read_text()


def functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Names and lines of the functions of an assembly file."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if found := re.match(r"([A-Za-z_]\w*):", line):
            name, lines = found[1], []
        elif re.match(r"\s+\.size\s", line) and name:
            yield name, lines
            name = ""
        else:
            lines.append(line)


def innermost(name: str, lines: list[str]) -> Loop | None:
    """The run of instructions between a label and a branch back to it, with no label inside, that has the most multiply-adds."""
    best: Loop | None = None
    label, start = "", 0
    for i, line in enumerate(lines):
        if found := re.match(r"(\.LBB\w+):", line):
            label, start = found[1], i + 1
        elif label and re.search(rf"\sb(\.\w+)?\s.*{re.escape(label)}$|\s[ct]bn?z\s.*{re.escape(label)}$", line):
            body = [text for text in lines[start : i + 1] if not re.match(r"\s*(//|\.)", text)]
            fmas = sum(bool(re.match(r"\s+fml[as]\s", text)) for text in body)
            if fmas > (best.fmas if best else 0):
                best = Loop(name, "\n".join(body), fmas)
    return best


def cycles(tool: str, loop: Loop, model: str) -> float:
    """Of one turn of the loop in steady state."""
    command = [tool, "-mtriple=aarch64", f"-mcpu={model}", f"-iterations={ITERATIONS}"]
    body = re.sub(r"\.L\w+$", "0", loop.body, flags=re.MULTILINE)
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert found
    return int(found[1]) / ITERATIONS


def main() -> None:
    tool = next(filter(None, map(shutil.which, MCA)), None)
    if tool is None:
        sys.exit("llvm-mca is not there; on Debian: apt install llvm-19")
    print(f"{'loop':16} FMAs" + "".join(f" | {name}: cycles, an FMA, of the limit" for name in PROCESSORS))
    for source, wanted in KERNELS.items():
        for name, lines in functions(assembly(source)):
            loop = innermost(name, lines) if re.search(wanted, name) else None
            if loop is None:
                continue
            cells = []
            for model, peak in PROCESSORS.values():
                took = cycles(tool, loop, model)
                cells.append(f" | {took:18.1f} {took / loop.fmas:7.2f} {loop.fmas / peak / took:13.0%}")
            print(f"{name:16} {loop.fmas:4}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
