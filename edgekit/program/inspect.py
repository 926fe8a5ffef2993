"""What a Program holds and costs: numbers for tools, text for people, a listing of its ops."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.graph.entry import Role
from edgekit.graph.ops.conv import WINOGRAD_RESULTS, Algorithm
from edgekit.graph.ops.update import LinearSgd, SgdUpdate
from edgekit.program.format import Architecture, Backend, Storage
from edgekit.program.memory import Timeline, timeline
from edgekit.program.program import EntryRecord, OpRecord, Program, Tensor

_NUMBERED = frozenset({Role.INPUT, Role.OUTPUT, Role.BOUNDARY, Role.CACHED})
PHASES = ("forward", "backward", "recomputed", "update")


@dataclass(frozen=True)
class OpCount:
    """Ops of one kind in an entry."""

    name: str
    count: int
    flops: int


@dataclass(frozen=True)
class EntryReport:
    """One entry point.

    Attributes:
        flops: floating-point operations of one run, by phase (forward, backward, recomputed, update).
        arena_bytes: planned.
        lower_bound: the most bytes in use at one time in this order; no plan needs less.
        peak: bytes in use at that time, by purpose.
    """

    name: str
    ops: tuple[OpCount, ...]
    flops: dict[str, int]
    arena_bytes: int
    lower_bound: int
    peak: dict[str, int]
    timeline: Timeline


@dataclass(frozen=True)
class Updated:
    """One trained array: the model's names that it holds, and how much of it is updated."""

    value: str
    parameters: tuple[str, ...]
    shape: tuple[int, ...]
    updated_shape: tuple[int, ...]
    bytes: int
    updated_bytes: int


@dataclass(frozen=True)
class Prefix:
    """The frozen beginning of a step: its share of the step's FLOPs, and the bytes that it makes of a sample."""

    share: float
    sample_bytes: int


@dataclass(frozen=True)
class Convolutions:
    """How many convolutions, gradients included, of all entries the compiler chose an algorithm for, and the measurement that it
    went by; None: by the number of results."""

    winograd: int
    product: int
    costs: dict[str, Any] | None


@dataclass(frozen=True)
class Int8Cost:
    """What computing the frozen prefix in int8 costs, measured on ``samples`` of the calibration inputs that gave no ranges.

    Attributes:
        signal_to_noise: of what the trained rest reads of the prefix, dB.
        output_error: |y - y in int8| / |y| of the network's outputs.
        agreement: the share of predictions that are the same class; None where there are no classes.
        loss: mean ``float32`` and ``int8`` loss; None where no targets were given.
    """

    samples: int
    signal_to_noise: float
    output_error: float
    agreement: float | None
    loss: dict[str, float] | None

    def text(self) -> str:
        """For people."""
        parts = [f"signal to noise {self.signal_to_noise:.1f} dB", f"outputs off by {self.output_error:.2%}"]
        if self.agreement is not None:
            parts.append(f"{self.agreement:.1%} the same class")
        if self.loss is not None:
            parts.append(f"loss {self.loss['float32']:.4g} in float32, {self.loss['int8']:.4g} in int8")
        return f"{', '.join(parts)} ({self.samples} samples)"


@dataclass(frozen=True)
class Report:
    """A Program in numbers. All sizes are bytes.

    Attributes:
        parameter_bytes: the arrays that prediction reads, trained or frozen.
        state_bytes: what the board changes and keeps: trained arrays, and beyond them ``optimizer_bytes``.
    """

    model: str
    board: str
    backend: str
    architecture: str
    sha256: str
    file_bytes: int
    batch: int
    accumulate: int
    update: dict[str, Any] | None
    optimizer: dict[str, Any] | None
    updated: tuple[Updated, ...]
    updated_bytes: int
    parameter_bytes: int
    constant_bytes: int
    state_bytes: int
    optimizer_bytes: int
    arena_bytes: int
    entries: tuple[EntryReport, ...]
    prefix: Prefix | None
    convolutions: Convolutions | None
    int8_cost: Int8Cost | None
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)

    def text(self) -> str:
        """For people."""
        return "\n".join(_lines(self))


def inspect(program: Program) -> Report:
    """Count and measure a Program."""
    h, meta = program.header, program.metadata
    updated = tuple(_updated(program))
    trained = sum(u.bytes for u in updated)
    return Report(
        model=str(meta.get("model", "")),
        board=str(meta.get("board", "")),
        backend=Backend(h.backend).name.lower(),
        architecture=Architecture(h.architecture).name.lower(),
        sha256=program.sha256.hex(),
        file_bytes=h.file_bytes,
        batch=h.batch,
        accumulate=h.accumulate,
        update=meta.get("update"),
        optimizer=meta.get("optimizer"),
        updated=updated,
        updated_bytes=sum(u.updated_bytes for u in updated),
        parameter_bytes=_parameter_bytes(program),
        constant_bytes=h.constants_bytes,
        state_bytes=h.state_bytes,
        optimizer_bytes=max(0, sum(t.type.nbytes for t in program.states) - trained),
        arena_bytes=h.arena_bytes,
        entries=tuple(_entry(program, name, entry) for name, entry in program.entries.items()),
        prefix=_prefix(program),
        convolutions=_convolutions(program),
        int8_cost=Int8Cost(**meta["int8_cost"]) if "int8_cost" in meta else None,
        seconds=dict(program.seconds),
    )


def phase(program: Program, number: int) -> str:
    """The phase of an op: forward, backward, recomputed (forward once more, in backward) or update."""
    phases = program.metadata.get("phases")
    if isinstance(phases, list) and len(phases) == len(program.ops):
        return str(phases[number])
    return "update" if program.ops[number].op.mutates else "forward"


def disassemble(program: Program) -> str:
    """Every op of every entry: results, operands, attributes, where it comes from."""
    return "\n".join(line for name, entry in program.entries.items() for line in _listing(program, name, entry))


def plot(program: Program, path: str | os.PathLike[str], entry: str = "train_step") -> None:
    """Draw the memory timeline of an entry (the first one where there is none of that name) as a PNG.

    Raises:
        StorageError: the file cannot be written.
    """
    from edgekit.program.plot import draw  # matplotlib takes a second to import

    draw(program, path, entry if entry in program.entries else next(iter(program.entries)))


def _entry(program: Program, name: str, entry: EntryRecord) -> EntryReport:
    numbers = range(entry.first_op, entry.first_op + len(entry.ops))
    flops = program.metadata.get("flops", [0] * len(program.ops))
    counts = Counter(o.op.name for o in entry.ops)
    by_name: Counter[str] = Counter()
    by_phase: Counter[str] = Counter()
    for i in numbers:
        by_name[program.ops[i].op.name] += flops[i]
        by_phase[phase(program, i)] += flops[i]
    line = timeline(program, name, [phase(program, i) for i in numbers])
    at = max(range(len(line.total)), key=lambda i: line.total[i])
    return EntryReport(
        name=name,
        ops=tuple(OpCount(n, c, by_name[n]) for n, c in sorted(counts.items(), key=lambda x: -by_name[x[0]])),
        flops={p: by_phase[p] for p in PHASES if by_phase[p]},
        arena_bytes=entry.arena_bytes,
        lower_bound=max(line.total),
        peak={purpose: sizes[at] for purpose, sizes in line.by_purpose.items() if sizes[at]},
        timeline=line,
    )


def _prefix(program: Program) -> Prefix | None:
    if "prefix" not in program.entries:
        return None
    made = (program.tensors[p.tensor].type.nbytes for p in program.entries["prefix"].ports if p.role is Role.BOUNDARY)
    flops = program.metadata.get("flops", [1] * len(program.ops))
    of_prefix, of_step = (
        sum(flops[e.first_op : e.first_op + len(e.ops)]) for e in (program.entries["prefix"], program.entries["train_step"])
    )
    return Prefix(of_prefix / max(of_step, 1), sum(made) // program.header.batch)


def _convolutions(program: Program) -> Convolutions | None:
    chosen = Counter(getattr(o.op, "algorithm", Algorithm.AUTO) for o in program.ops)
    winograd, product = chosen[Algorithm.WINOGRAD], chosen[Algorithm.PRODUCT]
    return Convolutions(winograd, product, program.metadata.get("costs")) if winograd or product else None


def _updated(program: Program) -> Iterator[Updated]:
    """From the ops that make steps: the gradient's shape is the updated part's."""
    names = {b["value"]: tuple(b["parameters"]) for b in program.metadata.get("bindings", [])}
    for o in (o for name in ("train_step", "update") if name in program.entries for o in program.entries[name].ops):
        operands = [None if n is None else program.tensors[n] for n in o.inputs]
        match o.op, operands:
            case SgdUpdate(), (Tensor() as param, Tensor() as grad, *_):
                shape = grad.type.shape
            case LinearSgd(), (Tensor() as x, Tensor(), Tensor() as param, *_):
                shape = (*param.type.shape[:-2], x.type.shape[-1], param.type.shape[-1])
            case _:
                continue
        mine = names.get(param.name, (param.name,))
        yield Updated(param.name, mine, param.type.shape, shape, param.type.nbytes, param.type.dtype.nbytes(shape))


def _parameter_bytes(program: Program) -> int:
    """Constants and states that prediction reads, each once."""
    entry = program.entries.get("predict") or next(iter(program.entries.values()))
    read = {n for o in entry.ops for n in o.inputs if n is not None and program.tensors[n].storage is not Storage.ARENA}
    return sum({(t.storage, t.offset): t.type.nbytes for t in (program.tensors[n] for n in read)}.values())


def size(n: float) -> str:
    """Bytes for people: 1.5 kB, 20.3 MB (decimal)."""
    return f"{scaled(n)}B"


def scaled(n: float) -> str:
    """A number with a decimal prefix: ``1.5 k``, ``20.3 M``, ``12 ``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.{2 if prefix == 'G' else 1}f} {prefix}"
    return f"{n:.0f} "


def _lines(r: Report) -> Iterator[str]:
    target = f"{r.board or 'any board'} ({r.backend}, {r.architecture})"
    yield f"{r.model or 'program'} for {target}, {size(r.file_bytes)}, sha256 {r.sha256[:16]}…"
    steps = f"batch {r.batch}" + (f" x {r.accumulate} accumulated" if r.accumulate > 1 else "")
    yield f"  {steps}; optimizer {_optimizer(r.optimizer)}"
    if r.update:
        yield f"  update {r.update.get('spec', '')}"
        yield from (f"    note: {note}" for note in r.update.get("notes", []))
    if r.updated:
        share = r.updated_bytes / r.parameter_bytes if r.parameter_bytes else 0.0
        names = sum(len(u.parameters) for u in r.updated)
        part = f"{size(r.updated_bytes)} of {size(r.parameter_bytes)} of parameters ({share:.1%})"
        yield f"  trains {part}, in {names} tensors of the model"
    state = f"state {size(r.state_bytes)} (the optimizer's part {size(r.optimizer_bytes)})"
    yield f"  memory: constants {size(r.constant_bytes)}, {state}, arena {size(r.arena_bytes)}"
    if r.prefix:
        kept = f"{size(r.prefix.sample_bytes)} a sample where the board caches it"
        yield f"  frozen prefix: {r.prefix.share:.0%} of a step's FLOPs, {kept}"
    if r.convolutions:
        chosen = f"{r.convolutions.winograd} by Winograd's algorithm, {r.convolutions.product} as matrix products"
        yield f"  dense 3×3 convolutions: {chosen}; chosen by {_costs(r.convolutions.costs)}"
    if r.int8_cost:
        yield f"  frozen prefix in int8: {r.int8_cost.text()}"
    for e in r.entries:
        yield f"  {e.name}: {sum(o.count for o in e.ops)} ops"
        if e.flops:
            yield "    FLOPs: " + ", ".join(f"{name} {scaled(n).strip()}" for name, n in e.flops.items())
        if e.arena_bytes:
            above = e.arena_bytes / e.lower_bound - 1 if e.lower_bound else 0.0
            yield f"    arena: {size(e.arena_bytes)} planned, {size(e.lower_bound)} liveness lower bound (+{above:.1%})"
            yield "    at the peak: " + ", ".join(f"{purpose} {size(n)}" for purpose, n in e.peak.items())
        yield "    ops: " + ", ".join(f"{o.count} {o.name}" for o in e.ops)
    if r.seconds:
        yield "  compiled in " + ", ".join(f"{name} {s:.2f} s" for name, s in r.seconds.items())


def _costs(facts: dict[str, Any] | None) -> str:
    """The measurement that algorithms were chosen by."""
    if not facts:
        return f"their number of results ({WINOGRAD_RESULTS} and more: Winograd's), as nothing was measured for this board"
    where = f"{facts['machine']} ({facts['isa']}, threads: {facts['threads']})"
    return f"the costs measured for {facts['board']} on {where}, {facts['date']}, edgekit {facts['edgekit']}"


def _optimizer(facts: dict[str, Any] | None) -> str:
    """``sgd, lr 0.01, momentum 0.9``: what is set."""
    if not facts:
        return "none"
    settings = (f"{key} {value}" for key, value in facts.items() if key != "name" and value)
    return ", ".join((str(facts.get("name", "")), *settings))


def _listing(program: Program, name: str, entry: EntryRecord) -> Iterator[str]:
    yield f"entry {name}: {len(entry.ops)} ops, arena {entry.arena_bytes} bytes"
    for p in entry.ports:
        limits = f" in {p.low}…{p.high - 1} or {p.ignore}" if p.high > p.low else ""
        role = p.role.name.lower() + (f" {p.index}" if p.role in _NUMBERED else "")
        yield f"  port {role}: {_operand(program.tensors[p.tensor])}{limits}"
    for i, o in enumerate(entry.ops):
        yield f"{i:5d} {phase(program, entry.first_op + i):10s} {_op(program, o)}"


def _op(program: Program, o: OpRecord) -> str:
    given = _named(program, o.outputs, o.op.results)
    taken = _named(program, o.inputs, o.op.operands)
    changed = [k for k, v in vars(o.op).items() if v != getattr(type(o.op), k, None)]
    attributes = ", ".join(f"{k}={_attribute(getattr(o.op, k))}" for k in changed)
    where = " ".join(x for x in (o.origin.module, o.origin.source) if x)
    text = f"{', '.join(given)} = " if given else ""
    return f"{text}{o.op.name}({', '.join([*taken, attributes] if attributes else taken)})" + (f"  # {where}" if where else "")


def _named(program: Program, numbers: Iterable[int | None], names: Iterable[str]) -> list[str]:
    """Operands or results; optional ones with their names."""
    pairs = [(program.tensors[n], name) for n, name in zip(numbers, names, strict=True) if n is not None]
    return [f"{name[:-1]}={_operand(t)}" if name.endswith("?") else _operand(t) for t, name in pairs]


def _operand(t: Tensor) -> str:
    sign = {Storage.ARENA: "%", Storage.CONSTANT: "#", Storage.STATE: "$"}[t.storage]
    return f"{sign}{t.name}:{t.type}@{t.offset:x}"


def _attribute(value: Any) -> str:
    if hasattr(value, "name"):
        return str(value.name.lower())
    return "×".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
