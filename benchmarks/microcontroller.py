"""Training steps of real networks on a microcontroller, their instructions and their memory:
``python -m benchmarks.microcontroller``.

MobileNetV2-0.35 and a network of MCUNet's search space in int8, 128×128×3, batch 1, SGD, with the published sparse schemes, on
the virtual Cortex-M7 (QEMU's mps2-an500 with ``-icount shift=0``: its clock counts instructions). ``ms`` is an estimate: so many
instructions at CPI cycles each. CPI 1 is what a Cortex-M7, which can issue two at a time, reaches where half of its
instructions pair and nothing waits; with wait states of flash and caches that miss it is more. QEMU models neither, so the
estimate is no measurement. Published: Lin et al., "On-Device Training Under 256KB Memory" (NeurIPS 2022), STM32F746 at 216 MHz.

``--profile`` prints which ops take the instructions.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import click
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from benchmarks.memory import NETWORKS, SIZE, Network
from edgekit.cli.output import json_option, report
from edgekit.sessions.bench import OpTime
from edgekit.virtual import M7, Settings, delete, start

NAME = "virtual-m7-bench"
CLOCK, CPI = 216e6, 1.0
PUBLISHED_MS = {"MobileNetV2-0.35": 373, "MCUNet-like": 546}


@dataclass(frozen=True)
class Row:
    """One network and scheme. Sizes in bytes, ``ops`` the instructions of a step by op and phase."""

    network: str
    scheme: str
    arena: int
    state: int
    scratch: int
    constants: int
    instructions: int
    multiply_adds: int
    published_kb: int
    ops: dict[str, int]

    @property
    def ram(self) -> int:
        return self.arena + self.state + self.scratch

    @property
    def ms(self) -> float:
        return self.instructions * CPI / CLOCK * 1e3


def program_of(network: Network, scheme: str) -> edgekit.Program:
    """For the virtual board; weights and calibration are random, which changes neither sizes nor times."""
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


def by_op(ops: tuple[OpTime, ...]) -> dict[str, int]:
    """Instructions of a step, the largest share first."""
    found = Counter[str]()
    for op in ops:
        found[f"{op.name} {op.phase}"] += round(op.ns)
    return dict(found.most_common())


def measure(device: edgekit.Device, network: Network, scheme: str, steps: int) -> Row:
    """Of ``train_step`` alone: the board's clock counts an instruction as a nanosecond."""
    program = program_of(network, scheme)
    bench = device.bench(program, steps=steps, profile=True)
    assert bench.ops is not None
    memory, ns = bench.memory, sorted(bench.step_ns)
    work = sum(op.flops for op in bench.ops) // 2
    sizes = (memory.arena, memory.state, memory.scratch, memory.constants)
    return Row(network.name, scheme, *sizes, ns[len(ns) // 2], work, network.published[2], by_op(bench.ops))


@contextmanager
def counting_board() -> Iterator[edgekit.Device]:
    """A virtual microcontroller whose clock counts instructions, for as long as it is needed."""
    start(Settings.from_profile(NAME, icount=True, machine=M7))
    try:
        with edgekit.connect(NAME) as device:
            yield device
    finally:
        delete(NAME)


@click.command()
@click.option("--all", "every", is_flag=True, help="All published schemes, not only the smallest.")
@click.option("--steps", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--profile", is_flag=True, help="Print the instructions of each kind of op.")
@json_option
def main(every: bool, steps: int, profile: bool) -> None:
    """Print the table."""
    with counting_board() as device:
        wanted = [(network, scheme) for network in NETWORKS for scheme in network.schemes[: None if every else 1]]
        rows = [measure(device, network, scheme, steps) for network, scheme in wanted]
    made = Table(box=SIMPLE, caption=f"kB of 1000 bytes; ms: {CPI:g} cycle an instruction at 216 MHz", caption_justify="left")
    sizes = ("arena", "state", "scratch", "RAM", "published", "flash")
    names = ("network", "scheme", *sizes, "M instr.", "M MACs", "ms", "published ms")
    for name in names:
        made.add_column(name, justify="left" if name in ("network", "scheme") else "right")
    for r in rows:
        numbers = [f"{n / 1000:.0f}" for n in (r.arena, r.state, r.scratch, r.ram)]
        counts = (f"{r.instructions / 1e6:.1f}", f"{r.multiply_adds / 1e6:.1f}", f"{r.ms:.0f}", str(PUBLISHED_MS[r.network]))
        made.add_row(r.network, r.scheme, *numbers, str(r.published_kb), f"{r.constants / 1000:.0f}", *counts)

    def draw(console: Console) -> None:
        console.print(made)
        for r in rows if profile else []:
            console.print(f"{r.network}, {r.scheme}")
            for name, count in r.ops.items():
                console.print(f"{count / 1e6:10.2f} M  {name}")

    report({"rows": [asdict(r) for r in rows]}, draw)


if __name__ == "__main__":
    sys.exit(main())
