"""Training steps of real networks on a microcontroller, their instructions and their memory:
``python -m benchmarks.microcontroller``.

MobileNetV2-0.35 and a network of MCUNet's search space in int8, 128×128×3, batch 1, SGD, with the published sparse schemes. Each
is linked into a firmware of nothing but its training steps (firmware/tools/steps.c) for QEMU's mps2-an500 with no more memory
than an STM32F746: the linker holds it to 1 MB of flash and 320 KB of RAM, and it runs there. With ``-icount shift=0`` the clock
counts instructions. ``ms`` is an estimate: so many instructions at CPI cycles each, at 216 MHz. A Cortex-M7 issues up to two
instructions a cycle, so CPI 1 is what it reaches where every other one pairs and nothing waits; wait states of flash and misses
of the caches come on top, and QEMU models neither. Published: Lin et al., "On-Device Training Under 256KB Memory" (NeurIPS
2022), measured on an STM32F746 at 216 MHz.

``--profile`` prints which ops take the instructions.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from edgekit.firmware.build import build
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from benchmarks.memory import NETWORKS, SIZE, Network
from edgekit.cli.output import json_option, report
from edgekit.program.writer import without_metadata
from edgekit.virtual import M7

TARGET = "mps2-an500-f746"
CLOCK, CPI = 216e6, 1.0
PUBLISHED_MS = {"MobileNetV2-0.35": 373, "MCUNet-like": 546}
_QEMU = ("qemu-system-arm", "-machine", "mps2-an500", "-icount", "shift=0", "-nographic", "-monitor", "none", "-serial", "none")


@dataclass(frozen=True)
class Row:
    """One network and scheme. Bytes; ``image`` of flash, with the Program; ``ops``: a step's instructions by op."""

    network: str
    scheme: str
    arena: int
    state: int
    scratch: int
    firmware: int
    image: int
    instructions: int
    multiply_adds: int
    published_kb: int
    ops: dict[str, int]

    @property
    def ram(self) -> int:
        """Activations, gradients, trained arrays and the kernels' working memory."""
        return self.arena + self.state + self.scratch

    @property
    def ms(self) -> float:
        return self.instructions * CPI / CLOCK * 1e3


def program_of(network: Network, scheme: str) -> edgekit.Program:
    """Weights and calibration are random, which changes neither sizes nor times."""
    torch.manual_seed(0)
    samples = torch.randn(1, 3, SIZE, SIZE)
    return edgekit.compile(
        network.make(),
        (samples, torch.zeros(1, dtype=torch.long)),
        board=M7,
        update=scheme,
        optimizer=edgekit.SGD(lr=0.01),
        quantize=edgekit.Int8(samples),
        name=network.name,
    )


def run(program: edgekit.Program) -> tuple[list[list[str]], int]:
    """The lines that its image tells, in words, and the bytes of flash that the image takes.

    Raises:
        BuildError: it does not fit.
        RuntimeError: it does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, bare = Path(folder) / "whole.ekp", Path(folder) / "bare.ekp"
        program.save(whole)
        bare.write_bytes(without_metadata(whole.read_bytes()))
        elf = build("steps", TARGET, resident=bare)
    command = (*_QEMU, "-semihosting-config", "enable=on,target=native", "-kernel", str(elf))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    if not any(words[:1] == ["memory"] for words in lines):
        raise RuntimeError(f"{elf} does not run: {done.stdout}{done.stderr}")
    return lines, _loaded_bytes(elf)


def _loaded_bytes(elf: Path) -> int:
    """Of an ELF file's segments, by its 32-bit little-endian program headers."""
    data = elf.read_bytes()
    start, size, count = (int.from_bytes(data[a:b], "little") for a, b in ((28, 32), (42, 44), (44, 46)))
    heads = (data[start + i * size :][:size] for i in range(count))
    return sum(int.from_bytes(head[16:20], "little") for head in heads if head[:4] == b"\1\0\0\0")


def measure(network: Network, scheme: str) -> Row:
    """Of ``train_step``; the board's clock counts an instruction as a nanosecond."""
    program = program_of(network, scheme)
    lines, image = run(program)
    memory = next(dict(zip(words[1::2], map(int, words[2::2]), strict=True)) for words in lines if words[0] == "memory")
    ns = [int(words[2]) for words in lines if words[0] == "step"]
    step = program.entries["train_step"].ops
    found = Counter[str]()
    for number, count in ((int(words[1]), int(words[3])) for words in lines if words[0] == "op"):
        found[step[number].op.name] += count
    flops = program.metadata["flops"][: sum(op.op.name != "reshape" for op in step)]
    products = sum(n for n in flops) // 2
    sizes = (memory["arena"], memory["state"], memory["scratch"], memory["firmware"], image)
    return Row(network.name, scheme, *sizes, ns[-1], products, network.published[2], dict(found.most_common()))


@click.command()
@click.option("--all", "every", is_flag=True, help="All published schemes, not only the smallest.")
@click.option("--profile", is_flag=True, help="Print the instructions of each kind of op.")
@json_option
def main(every: bool, profile: bool) -> None:
    """Print the table."""
    wanted = [(network, scheme) for network in NETWORKS for scheme in network.schemes[: None if every else 1]]
    rows = [measure(network, scheme) for network, scheme in wanted]
    made = Table(box=SIMPLE, caption=f"kB of 1000 bytes; ms: {CPI:g} cycle an instruction at 216 MHz", caption_justify="left")
    sizes = ("arena", "state", "scratch", "RAM", "published", "flash")
    names = ("network", "scheme", *sizes, "M instr.", "M MACs", "ms", "published ms")
    for name in names:
        made.add_column(name, justify="left" if name in ("network", "scheme") else "right")
    for r in rows:
        numbers = [f"{n / 1000:.0f}" for n in (r.arena, r.state, r.scratch, r.ram)]
        counts = (f"{r.instructions / 1e6:.1f}", f"{r.multiply_adds / 1e6:.1f}", f"{r.ms:.0f}", str(PUBLISHED_MS[r.network]))
        made.add_row(r.network, r.scheme, *numbers, str(r.published_kb), f"{r.image / 1000:.0f}", *counts)

    def draw(console: Console) -> None:
        console.print(made)
        for r in rows if profile else []:
            console.print(f"{r.network}, {r.scheme}")
            for name, count in r.ops.items():
                console.print(f"{count / 1e6:10.2f} M  {name}")

    report({"rows": [asdict(r) for r in rows]}, draw)


if __name__ == "__main__":
    sys.exit(main())
