"""Planned memory of a training step on a microcontroller, beside the published figures: ``python -m benchmarks.memory``.

MobileNetV2-0.35 and a network from MCUNet's search space, 128×128×3, batch 1, SGD; int8 forward, float32 backward. Published: Lin
et al., "On-Device Training Under 256KB Memory" (NeurIPS 2022), STM32F746; the peak names no scheme, and their MCUNet is another
network of the same space. Sizes do not depend on the weights' values, so the networks are not trained. The arena is planned: no
board is needed.

Columns, in kB of 1000 bytes: ``full`` and ``sparse`` keep every gradient until a step's end, in the order of differentiation;
``+ order`` updates as soon as a gradient is there, in the best order found; ``+ split`` does wide pairs by channels and weight
gradients by blocks; ``+ bands`` runs the first layers for some rows at a time. ``state`` is what is trained; ``both`` are the
smallest arena and the state.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
import torch
from edgekit.backends.cpu.capability import CPU
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import nn

from edgekit.cli.output import json_option, report
from edgekit.compiler.bands import split_rows
from edgekit.compiler.compile import lower, optimize, order
from edgekit.compiler.layout import move_permutes
from edgekit.compiler.planner import plan_memory
from edgekit.compiler.split import Peak, peak_of, split_wide
from edgekit.frontends.torch import capture
from edgekit.graph.graph import Graph
from edgekit.graph.model import Model
from edgekit.program.format import align
from edgekit.training.fold import fold
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from edgekit.training.quantize import Quantized, quantize
from edgekit.training.scheme import choose
from examples.models import mcunet, mobilenet_v2

SIZE, CLASSES = 128, 10


@dataclass(frozen=True)
class Network:
    """A network, its schemes, and what was published for one like it: kB full, sparse, sparse and reordered."""

    name: str
    make: Callable[[], nn.Module]
    schemes: tuple[str, ...]
    published: tuple[int, int, int]


NETWORKS = (
    Network(
        "MobileNetV2-0.35",
        lambda: mobilenet_v2(0.35, CLASSES),
        ("mobilenetv2-49kb", "mobilenetv2-99kb", "mobilenetv2-138kb"),
        (2939, 335, 141),
    ),
    Network("MCUNet-like", lambda: mcunet(0.5, CLASSES), ("mcunet-49kb", "mcunet-99kb", "mcunet-148kb"), (3650, 560, 173)),
)


@dataclass(frozen=True)
class Row:
    """Planned bytes of one scheme."""

    network: str
    scheme: str
    full: int
    sparse: int
    ordered: int
    split: int
    bands: int
    state: int
    published_kb: tuple[int, int, int]


def step_of(model: Model, q: Quantized) -> Graph:
    return make_plan(model, q.trainables, SGD(lr=0.01))["train_step"].graph


def in_int8(captured: Model, scheme: str, samples: torch.Tensor) -> Quantized:
    folded, trainables = fold(move_permutes(captured), choose(captured, scheme).fractions)
    return quantize(folded, trainables, [samples.numpy()])


def unordered(q: Quantized) -> int:
    """The arena with the optimizer's step last."""
    return plan_memory(optimize(step_of(q.model, q), CPU)).placement.arena_bytes


def measure(network: Network) -> list[Row]:
    torch.manual_seed(0)
    samples = torch.randn(1, 3, SIZE, SIZE)
    captured = capture(network.make(), (samples, torch.zeros(1, dtype=torch.long)), "cross_entropy")
    full = unordered(in_int8(captured, "full", samples))
    rows = []
    for scheme in network.schemes:
        q = in_int8(captured, scheme, samples)
        ordered = plan_memory(order(optimize(step_of(q.model, q), CPU), CPU)).placement.arena_bytes

        def entry(model: Model, q: Quantized = q) -> Graph:
            step = make_plan(model, q.trainables, SGD(lr=0.01))["train_step"]
            return lower(step, CPU, recompute=0).entry.graph

        def arena(way: Callable[[Model, Callable[[Model], Peak]], Model], q: Quantized = q) -> int:
            return plan_memory(entry(way(q.model, lambda m: peak_of(entry(m))))).placement.arena_bytes

        split, bands = arena(split_wide), arena(split_rows)
        state = sum(align(v.nbytes) for v in q.model.graph.state)
        rows.append(Row(network.name, scheme, full, unordered(q), ordered, split, bands, state, network.published))
    return rows


@click.command()
@json_option
def main() -> None:
    """Print the table."""
    rows = [row for network in NETWORKS for row in measure(network)]
    made = Table(box=SIMPLE, caption="kB of 1000 bytes; published: full / sparse / sparse, reordered", caption_justify="left")
    for name in ("network", "scheme", "full", "sparse", "+ order", "+ split", "+ bands", "state", "both", "published"):
        made.add_column(name, justify="left" if name in ("network", "scheme") else "right")
    for r in rows:
        sizes = (f"{n / 1000:.0f}" for n in (r.full, r.sparse, r.ordered, r.split, r.bands, r.state, r.bands + r.state))
        made.add_row(r.network, r.scheme, *sizes, " / ".join(map(str, r.published_kb)))

    def draw(console: Console) -> None:
        console.print(made)

    report({"rows": [asdict(r) for r in rows]}, draw)


if __name__ == "__main__":
    sys.exit(main())
