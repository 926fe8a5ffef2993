"""Measures what ``edgekit.costs`` has: small Programs of one layer each, run on the board as ``edgekit bench`` runs any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np

from edgekit.costs import KINDS, Costs, Kind, Layer, version
from edgekit.errors import InputError
from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.ops.conv import Algorithm, Conv2d, Conv2dInputGrad, Conv2dWeightGrad, Quad
from edgekit.graph.ops.elementwise import Reduce
from edgekit.graph.ops.function import Reduction
from edgekit.program import Program, write_program
from edgekit.sessions.device import Device

#: The shapes: images of so many pixels each way, channels of x and of y. A shape between them counts as the nearest.
SIZES = (4, 7, 10, 14, 28)
CHANNELS = (16, 64, 256)
_PADDING: Quad = (1, 1, 1, 1)
_ALGORITHMS = (Algorithm.PRODUCT, Algorithm.WINOGRAD)
_TURNS = 2  #: of each algorithm in a step, so that neither always finds in the caches what the other one read
_ROUNDS = 4  #: of which the best counts: others may be at work on the board
_FLOPS = 400_000_000  #: of a round, but for at most _STEPS steps
_STEPS = 50


def calibrate(device: Device, progress: Callable[[int, int], object] = lambda _done, _total: None) -> Costs:
    """Measure a board's table.

    Args:
        progress: told (layers done, layers in all).

    Raises:
        InputError: the board's backend has no choice of algorithms.
        DeviceError, LinkError: the board refuses, or is gone.
    """
    if device.info.backend != "cpu":
        raise InputError(
            f"{device.client.link.name}: there is nothing to calibrate; its backend {device.info.backend} has one algorithm only",
            "programs for it are compiled without a table",
        )
    shapes = [(size, inputs, outputs) for inputs in CHANNELS for outputs in CHANNELS for size in SIZES]
    layers: list[Layer] = []
    for shape in shapes:
        progress(len(layers), len(shapes))
        layers.append(_measured(device, *shape))
    info = device.info
    return Costs(
        board=device.board.id,
        architecture=device.board.architecture,
        machine=device.client.link.name,
        isa=info.isa,
        threads=info.threads,
        edgekit=version(),
        date=datetime.now(UTC).date(),
        layers=tuple(layers),
    )


def _measured(device: Device, size: int, inputs: int, outputs: int) -> Layer:
    """One layer's speeds, of the fastest of its turns and rounds."""
    program = layer_program(size, inputs, outputs)
    flops = 2 * 9 * inputs * outputs * size * size
    steps = max(1, min(_STEPS, _FLOPS // (flops * len(program.ops))))
    best = np.min([device.op_times(program, steps)[:-1] for _ in range(_ROUNDS)], axis=0)
    best = best.reshape(len(KINDS), _TURNS, len(_ALGORITHMS)).min(axis=1)
    speeds = {kind: (_three_digits(flops / ns[0]), _three_digits(flops / ns[1])) for kind, ns in zip(KINDS, best, strict=True)}
    return Layer(results=size * size, inputs=inputs, outputs=outputs, **speeds)


def layer_program(size: int, inputs: int, outputs: int) -> Program:
    """A ``train_step`` of one layer in all its kinds, each ``_TURNS`` times by each algorithm in turn, then a loss."""
    build = Builder()
    x = build.input("x", (1, size, size, inputs))
    zeros = np.zeros((3, 3, inputs, outputs), np.float32)
    frozen, trained = build.constant("frozen", zeros), build.state("trained", zeros)
    dy = None
    for kind, algorithm in _turns():
        match kind:
            case "frozen":
                dy = build(Conv2d(padding=_PADDING, algorithm=algorithm), x, frozen)
            case "forward":
                build(Conv2d(padding=_PADDING, algorithm=algorithm), x, trained)
            case "input_grad":
                build(Conv2dInputGrad((size, size), padding=_PADDING, algorithm=algorithm), dy, trained)
            case "weight_grad":
                build(Conv2dWeightGrad((3, 3), padding=_PADDING, algorithm=algorithm), x, dy)
    loss = build(Reduce(Reduction.MEAN, 0b1111), dy)
    ports = (Port(Role.INPUT, x), Port(Role.LOSS, loss))
    return write_program(
        {"train_step": Entry(build.graph, ports)}, metadata={"model": f"3×3 {inputs}→{outputs} at {size}×{size}"}
    )


def _turns() -> Iterator[tuple[Kind, Algorithm]]:
    for kind in KINDS:
        for _ in range(_TURNS):
            for algorithm in _ALGORITHMS:
                yield kind, algorithm


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
