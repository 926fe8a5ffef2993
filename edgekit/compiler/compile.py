"""The entries of a training plan → a Program: the passes, the order, the memory plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgekit.backends import Capability
from edgekit.compiler.algorithms import choose_algorithms
from edgekit.compiler.backward import fuse_backward, fuse_bias_gradients
from edgekit.compiler.common import merge_common
from edgekit.compiler.constants import fold_constants
from edgekit.compiler.dead import remove_dead
from edgekit.compiler.epilogue import fuse_epilogues
from edgekit.compiler.linearize import linearize
from edgekit.compiler.masks import drop_masks
from edgekit.compiler.parts import split_weight_gradients
from edgekit.compiler.planner import MemoryPlan, plan_memory
from edgekit.compiler.prefix import split_prefix
from edgekit.compiler.recompute import BUDGET, recompute_activations, recompute_parameters
from edgekit.compiler.rewrite import is_update
from edgekit.compiler.samples import group_samples
from edgekit.compiler.scale import fuse_scale_gradients
from edgekit.compiler.schedule import forward_length, liveness_peak, schedule
from edgekit.compiler.sink import sink_slices
from edgekit.compiler.updates import fuse_updates
from edgekit.costs import Costs
from edgekit.errors import UnsupportedError
from edgekit.graph.entry import Entry
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.views import is_view
from edgekit.program.format import Architecture, Backend, EntryKind
from edgekit.program.program import Program
from edgekit.program.writer import write_program

#: Reading a result where a bit an element would do took 4 % of a full MobileNetV2-1.0 step and saved 2 % of its memory.
_WORTH = 0.95


@dataclass(frozen=True)
class Lowered:
    """One entry, ready to be written, and its memory."""

    entry: Entry
    memory: MemoryPlan


def compile_program(
    entries: Mapping[str, Entry],
    *,
    capability: Capability,
    architecture: Architecture = Architecture.ANY,
    batch: int = 1,
    accumulate: int = 1,
    metadata: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    costs: Costs | None = None,
    recompute: float = BUDGET,
) -> Program:
    """Lower the entries for a backend and write them as one Program.

    ``recompute``: the fraction of a step's FLOPs that may be spent on activations once more; with 0 all that backward reads are
    kept.

    The metadata gets ``phases`` and ``flops`` (one per op), ``memory`` (planned bytes and liveness lower bound by entry) and
    whose ``costs`` chose the convolutions' algorithms. ``seconds`` are those of the stages before.

    Raises:
        UnsupportedError: the backend has no kernel for an op.
    """
    started = time.perf_counter()
    whole = {name: lower(entry, capability) for name, entry in entries.items()}
    if not capability.small:
        whole = {name: choose_algorithms(entry, costs) for name, entry in whole.items()}
    split = split_prefix(whole["train_step"], batch) if capability.caches and "train_step" in whole else None
    if split is not None:
        whole |= {"prefix": split.prefix, "suffix": split.suffix}
    if not capability.small:
        within = {} if split is None else {"train_step": split.prefix.graph}
        whole = {name: group_samples(entry, batch, within.get(name)) for name, entry in whole.items()}
    lowered = {name: lay_out(entry, capability, recompute) for name, entry in whole.items()}
    ordered = [lowered[name] for name in (kind.name.lower() for kind in EntryKind) if name in lowered]
    ops = [node for low in ordered for node in low.entry.graph.nodes if not is_view(node.op)]
    notes: dict[str, Any] = {
        "phases": [phase for low in ordered for phase in _phases(low.entry.graph)],
        "flops": [node.op.flops(node) for node in ops],
        "memory": {k: {"arena": v.memory.placement.arena_bytes, "lower_bound": v.memory.lower_bound} for k, v in lowered.items()},
        "costs": None if costs is None else costs.facts(),
    }
    program = write_program(
        {name: low.entry for name, low in lowered.items()},
        architecture=architecture,
        backend=Backend(capability.backend),
        batch=batch,
        accumulate=accumulate,
        metadata={**(metadata or {}), **notes},
        placements={name: low.memory.placement for name, low in lowered.items()},
    )
    return replace(program, seconds={**(seconds or {}), "compile": round(time.perf_counter() - started, 3)})


def lower(entry: Entry, capability: Capability) -> Entry:
    """Passes and order of one entry."""
    graph = split_weight_gradients(optimize(entry.graph, capability))
    _require_kernels(graph, capability)
    return replace(entry, graph=order(graph, capability))


def lay_out(entry: Entry, capability: Capability, recompute: float = BUDGET) -> Lowered:
    """Memory of one entry. Activations are recomputed in the order found, which is then looked for anew."""
    graph = entry.graph
    if recompute and (smaller := recompute_activations(graph, recompute)) is not graph:
        graph = min(smaller, order(smaller, capability), key=liveness_peak)
    graph = fuse_updates(graph, capability)
    return Lowered(replace(entry, graph=graph), plan_memory(graph))


def optimize(graph: Graph, capability: Capability) -> Graph:
    """The passes that rewrite nodes, in their order."""
    passes: tuple[Callable[[Graph], Graph], ...] = (
        linearize,
        fold_constants,
        merge_common,
        remove_dead,
        lambda g: fuse_epilogues(g, capability),
        lambda g: fuse_backward(g, capability),
        lambda g: fuse_scale_gradients(g, capability),
        lambda g: fuse_bias_gradients(g, capability),
        sink_slices,
        recompute_parameters,
        remove_dead,
    )
    for run in passes:
        graph = run(graph)
    return graph


def order(graph: Graph, capability: Capability) -> Graph:
    """The best order found, with masks, or with the results that make them unnecessary where that is worth its time."""
    masked = schedule(graph)
    direct = schedule(remove_dead(drop_masks(graph, capability, forward_length(graph))))
    return direct if liveness_peak(direct) < _WORTH * liveness_peak(masked) else masked


def _require_kernels(graph: Graph, capability: Capability) -> None:
    for node in graph.nodes:
        if not is_view(node.op) and not capability.supports(node):
            operands = ", ".join("-" if v is None else str(v.type) for v in node.inputs)
            raise UnsupportedError(
                f"the backend {capability.name} has no kernel for {node.op.name}({operands}) in module {node.origin.module!r}",
                "choose another board or backend, or change that module",
            )


def _phases(graph: Graph) -> list[str]:
    """For each op, ``forward``, ``backward``, ``recomputed`` (forward once more, in backward) or ``update``."""
    head = forward_length(graph)
    return [_phase(node, i < head) for i, node in enumerate(graph.nodes) if not is_view(node.op)]


def _phase(node: Node, forward: bool) -> str:
    if is_update(node.op):
        return "update"
    return "recomputed" if node.recomputed else "forward" if forward else "backward"
