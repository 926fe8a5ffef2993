"""``compile``: the whole way from a PyTorch model to a training Program.

capture → choose → move permutations → fold → quantise, if asked → plan (autodiff, optimizer) → lower (passes, memory). The
file is not named after the function: a submodule ``edgekit.compile`` would hide it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.backends import Capability
from edgekit.backends.cortex_m.capability import CORTEX_M
from edgekit.backends.cpu.capability import CPU
from edgekit.board import Board, load_board
from edgekit.compiler import compile_program
from edgekit.compiler.bands import split_rows
from edgekit.compiler.compile import lower
from edgekit.compiler.layout import move_permutes
from edgekit.compiler.recompute import BUDGET
from edgekit.compiler.split import Peak, peak_of, split_wide
from edgekit.costs import Costs, load_costs
from edgekit.errors import InputError, UnsupportedError
from edgekit.fitting import fit
from edgekit.frontends.torch import Loss, capture
from edgekit.frontends.torch.batch import resize_batch
from edgekit.graph.entry import Entry
from edgekit.graph.model import Model, Trainable
from edgekit.program import Architecture, Program
from edgekit.program.inspect import Int8Cost
from edgekit.training.fold import fold
from edgekit.training.int8_cost import measure
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from edgekit.training.quantize import Quantized
from edgekit.training.quantize import quantize as quantize_model
from edgekit.training.scheme import Update, choose

if TYPE_CHECKING:
    import torch

ARCHITECTURES = {"x86_64": Architecture.X86_64, "aarch64": Architecture.AARCH64, "armv7e-m": Architecture.ARMV7EM}
CAPABILITIES: dict[str, Capability] = {"cpu": CPU, "cortex-m": CORTEX_M}


@dataclass(frozen=True)
class Int8:
    """Compile to int8: weights and activations in 8 bits, gradients in float32 (docs/quantization.md).

    Attributes:
        inputs: about a hundred of the model's real inputs, samples first (a tuple where it has several), which the activations'
            ranges are taken from. Their number is a multiple of the batch, or the rest is left out.
        scaled_updates: quantisation-aware scaling of the updates; False leaves it out, for comparison.
        prefix_only: only what lies before the first trained array is computed in int8, all else in float32. A quarter of the
            inputs then gives no ranges: what int8 costs is measured on it (``Program.report().int8_cost``).
        targets: of ``inputs``; with them that measurement has the loss.

    Raises:
        InputError: something else than tensors, or options that do not go together.
    """

    inputs: torch.Tensor | tuple[torch.Tensor, ...]
    scaled_updates: bool = True
    prefix_only: bool = False
    targets: torch.Tensor | None = None

    def __post_init__(self) -> None:
        import torch

        given = (*(self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)), self.targets)
        if others := [type(v).__name__ for v in given if not isinstance(v, torch.Tensor | None)]:
            raise InputError(f"Int8 calibrates on tensors, this is a {others[0]}", "give torch.from_numpy(array)")
        if self.prefix_only and not self.scaled_updates:
            raise InputError("updates of float32 arrays have no scaling to leave out", "leave out scaled_updates or prefix_only")


def compile(
    model: torch.nn.Module,
    example: tuple[Any, torch.Tensor | None],
    *,
    loss: Loss = "cross_entropy",
    board: str | Board = "local",
    update: Update = "full",
    optimizer: SGD | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    quantize: Int8 | None = None,
    memory: int | None = None,
    name: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> Program:
    """Compile a training Program for one board; the model itself stays as it is.

    Args:
        model: in evaluation mode, float32, on the CPU.
        example: (inputs, targets) of the batch size that the board shall train with; their values do not matter. ``inputs`` is
            a tensor or a tuple of tensors, the first axis of each counts samples; classes are int64.
        loss: cross_entropy, mse, l1, bce_with_logits, or a function of (outputs, targets) that gives one number.
        board: a profile's id (``edgekit boards`` lists them).
        update: ``full``, ``head``, ``bias:N``, ``last:N``, a preset's name, a TOML file, or a mapping from globs over the names
            in ``model.named_parameters()`` to fractions (docs/update-schemes.md).
        optimizer: SGD() if not given.
        clip_norm: scale the gradients so that their norm is at most this.
        accumulate: micro-batches whose mean gradient makes one step.
        quantize: compute in int8, all or what comes before the first trained array, calibrated on these inputs; None: in float32.
        memory: the most bytes that arena, state and constants may take together. Where the program takes more, activations are
            computed twice, then the batch is split into micro-batches whose gradients are accumulated.
        name: what reports call the model; its class by default.
        progress: called with each stage's name as it starts.

    Raises:
        InputError: the model, the example or an option does not work.
        UnsupportedError: the model does something that cannot be compiled; the message names the operator, module and line.
    """
    if optimizer is not None and not isinstance(optimizer, SGD):
        raise InputError(f"the optimizer is a {type(optimizer).__name__}", "give edgekit.SGD(lr=0.01)")
    chosen = load_board(board) if isinstance(board, str) else board
    job = _Job(
        model=model,
        loss=loss,
        board=chosen,
        update=update,
        optimizer=optimizer or SGD(),
        clip_norm=clip_norm,
        quantize=quantize,
        costs=load_costs(chosen),
        name=name or type(model).__name__,
        progress=progress,
    )
    program = job.compile(example, accumulate)
    if memory is None:
        return program
    return fit(program, lambda way: job.compile(resize_batch(example, way.batch), way.accumulate, way.recompute), memory)


@dataclass(frozen=True)
class _Job:
    """What ``compile`` was asked for, but for the batch and how it is computed."""

    model: torch.nn.Module
    loss: Loss
    board: Board
    update: Update
    optimizer: SGD
    clip_norm: float | None
    quantize: Int8 | None
    costs: Costs | None
    name: str
    progress: Callable[[str], object] | None

    def compile(self, example: tuple[Any, torch.Tensor | None], accumulate: int, recompute: float = BUDGET) -> Program:
        """For an example of its batch size; ``recompute`` as ``compile_program`` has it."""
        capability = _capability(self.board)
        clock = _Clock(self.progress)
        with clock.stage("capture"):
            captured = capture(self.model, example, self.loss)
        with clock.stage("scheme"):
            choice = choose(captured, self.update)
        int8_inputs: dict[str, list[float]] = {}
        cost: Int8Cost | None = None
        with clock.stage("fold"):
            partial = {name for name, fraction in choice.fractions.items() if fraction < 1}
            folded, trainables = fold(move_permutes(captured, keep=partial), choice.fractions)
        if self.quantize is not None:
            with clock.stage("quantise"):
                whole, cost = _to_int8(folded, trainables, self.quantize)
            folded, trainables = whole.model, whole.trainables
            int8_inputs = {str(i): list(map(float, pair)) for i, pair in enumerate(whole.inputs) if pair is not None}

        def plan(model: Model) -> dict[str, Entry]:
            return make_plan(model, trainables, self.optimizer, accumulate=accumulate, clip_norm=self.clip_norm)

        if self.quantize is not None and (capability.small or not self.quantize.prefix_only):
            with clock.stage("split"):
                split = split_rows if capability.small else split_wide
                folded = split(folded, lambda model: _peak(plan(model), capability))
        with clock.stage("differentiate"):
            entries = plan(folded)
        if self.progress is not None:
            self.progress("compile")
        return compile_program(
            entries,
            capability=capability,
            architecture=ARCHITECTURES[self.board.architecture],
            batch=captured.inputs[0].shape[0],
            accumulate=accumulate,
            metadata={
                "model": self.name,
                "board": self.board.id,
                "update": {"spec": choice.spec, "notes": list(choice.notes)},
                "optimizer": {"name": "sgd", **asdict(self.optimizer), "clip_norm": self.clip_norm},
                "loss": self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", type(self.loss).__name__),
                "bindings": [trainable.binding.to_json() for trainable in trainables],
                "digests": captured.digests,
                "int8_inputs": int8_inputs,
                **({} if cost is None else {"int8_cost": asdict(cost)}),
            },
            seconds=clock.seconds,
            costs=self.costs,
            recompute=recompute,
        )


def _to_int8(model: Model, trainables: list[Trainable], asked: Int8) -> tuple[Quantized, Int8Cost | None]:
    """The model in int8; of a prefix alone, its cost on a quarter of the samples, from all of them, which give no ranges."""
    tensors = asked.inputs if isinstance(asked.inputs, tuple) else (asked.inputs,)
    inputs = [t.detach().numpy() for t in tensors]
    if not asked.prefix_only:
        return quantize_model(model, trainables, inputs, scaled_updates=asked.scaled_updates), None
    samples, batch = len(inputs[0]), model.inputs[0].shape[0]
    if samples < 2 * batch:
        raise InputError(
            f"{samples} calibration samples are less than two batches of {batch}: for ranges and to measure what int8 costs",
            "give a hundred or so",
        )
    held_out = np.zeros(samples, np.bool_)
    held_out[np.linspace(0, samples - 1, max(1, samples // batch // 4) * batch).astype(int)] = True
    whole = quantize_model(model, trainables, [a[~held_out] for a in inputs], prefix_only=True)
    targets = None if asked.targets is None else asked.targets.detach().numpy()[held_out]
    return whole, measure(model, whole, [a[held_out] for a in inputs], targets)


def _peak(entries: dict[str, Entry], capability: Capability) -> Peak:
    """Of a training step, without recomputation, which takes long to choose."""
    return peak_of(lower(entries["train_step"], capability).graph)


def _capability(board: Board) -> Capability:
    found = CAPABILITIES.get(board.backend)
    if found is None or board.architecture not in found.architectures:
        raise UnsupportedError(
            f"the board {board.id!r} needs the backend {board.backend!r}, which is not there yet",
            "`edgekit boards` lists the boards",
        )
    return found


class _Clock:
    """Seconds by stage."""

    def __init__(self, progress: Callable[[str], object] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
