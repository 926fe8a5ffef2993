"""Runs cases on a backend and says precisely what is wrong, if anything is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgekit.graph.op import Array
from tests.conformance.bounds import Bound, bounds
from tests.conformance.case import Bundle, Case, bundle
from tests.conformance.runner import Runner


def faults(runner: Runner, cases: Sequence[Case], threads: Sequence[int] = (1, 2), runs: int = 2) -> list[str]:
    """One line a fault: wrong results, writes outside of results, runs that differ in a bit."""
    supported = [c for c in cases if runner.supports(c)]
    if not supported:
        return []
    whole = bundle(supported)
    found = []
    for count in threads:
        images = runner.run(whole, count, runs)
        where = f"{runner.name}, {count} thread{'s' * (count > 1)}"
        found += [f"{where}: {line}" for line in _wrong(whole, *images[0])]
        stray = whole.strayed(*images[0])
        if stray:
            found.append(f"{where}: wrote outside of results: {stray}")
        found += [f"{where}: {line}" for image in images[1:] for line in _unrepeated(whole, images[0], image)]
    return found


def _wrong(whole: Bundle, arena: bytes, state: bytes) -> list[str]:
    found = []
    for at, case in enumerate(whole.cases):
        operands = [None if o is None else _exactly(o.array) for o in case.operands]
        operands += [None] * (len(case.op.operands) - len(operands))
        truth = case.op.reference(*operands)
        limits = bounds(case.op, operands, truth)
        names = [*case.op.results, *(case.op.operands[i] for i in case.op.mutates if operands[i] is not None)]
        made = whole.results(at, arena) | dict(enumerate(whole.mutated(at, state), len(case.op.results)))
        for i, got in made.items():
            line = compare(got, truth[i], limits[i])
            if line:
                found.append(f"{names[i].rstrip('?')} of {case}: {line}")
    return found


def compare(got: Array, truth: Array, limit: Bound) -> str:
    """What is wrong with a result, "" if nothing is."""
    if truth.dtype == np.float64:
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(got.astype(np.float64) - truth)
            nearest = (got == truth.astype(np.float32)) | (np.isnan(got) & np.isnan(truth))
            bad = ~(error <= limit.error) & ~nearest
    else:
        error = (got != truth).astype(float)
        bad = got != truth
        if limit.unsure is not None:
            bad &= ~limit.unsure
    if not bad.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    allowed = np.broadcast_to(limit.error, got.shape)[first]
    numbers = f"got {got[first]}, not {truth[first]} ± {allowed:.3g}"
    worst = np.nanmax(np.where(bad, error, 0.0)) if np.isfinite(error).any() else np.nan
    return f"{int(bad.sum())} of {bad.size} wrong, first at {first}: {numbers}; largest error {worst:.3g}"


def _unrepeated(whole: Bundle, first: tuple[bytes, bytes], again: tuple[bytes, bytes]) -> list[str]:
    if first == again:
        return []
    differing = [
        str(case)
        for at, case in enumerate(whole.cases)
        if not _same(whole.results(at, first[0]).values(), whole.results(at, again[0]).values())
        or not _same(whole.mutated(at, first[1]), whole.mutated(at, again[1]))
    ]
    return [f"a second run gave other bits: {case}" for case in differing] or ["a second run left other unused bytes"]


def _same(a: Iterable[Array], b: Iterable[Array]) -> bool:
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(a, b, strict=True))


def _exactly(array: Array) -> Array:
    """float32 as float64; other types as they are."""
    return array.astype(np.float64) if array.dtype == np.float32 else array
