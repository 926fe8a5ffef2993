"""Every backend computes every op as the reference does, to rounding: alone and in threads, the same on every run.

A backend joins by one line in RUNNERS.
"""

from __future__ import annotations

import pytest
from edgekit.backends.cortex_m.capability import CORTEX_M
from hypothesis import given, settings

from edgekit.graph.ops.update import LinearSgd
from tests.conformance.case import Case
from tests.conformance.cases import FAMILIES, Family
from tests.conformance.runner import CpuRunner, Runner
from tests.conformance.verdict import faults

X86 = ("avx512_vnni", "avx512", "avx2_vnni", "avx2", "plain")
RUNNERS: list[CpuRunner] = [*map(CpuRunner, X86), CpuRunner("m7", "x86_64-linux-m7")]
SLOW_RUNNERS: list[CpuRunner] = [
    *(CpuRunner(isa, "aarch64-linux", ("qemu-aarch64-static",)) for isa in ("neon_dotprod", "neon")),
    CpuRunner("m7", "arm-linux-m7", ("qemu-arm-static",)),
    CpuRunner("m7", "x86_64-linux-m7-asan"),
    *(CpuRunner(isa, "x86_64-linux-asan") for isa in X86),
]
EXAMPLES = 60  #: drawn cases a family

runners = pytest.mark.parametrize(
    "runner",
    [pytest.param(r, id=r.name) for r in RUNNERS] + [pytest.param(r, id=r.name, marks=pytest.mark.slow) for r in SLOW_RUNNERS],
)
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


@runners
@families
def test_table(runner: Runner, family: Family) -> None:
    """All representative cases in one Program, with one thread and two, twice each."""
    skip_unusable(runner)
    report(faults(runner, family.table()))


@runners
def test_every_op_is_there(runner: CpuRunner) -> None:
    """The backend claims a kernel for every op that it lists, in some form that the tables hold."""
    skip_unusable(runner)
    cases = [case for family in FAMILIES for case in family.table()]
    lacking = {type(c.op) for c in cases} - {type(c.op) for c in cases if runner.supports(c)}
    assert lacking == ({LinearSgd} if runner.capability is CORTEX_M else set())


@runners
@families
def test_drawn(runner: Runner, family: Family) -> None:
    """Awkward cases, each in a Program of its own, so that its scratch memory is its own; hypothesis shrinks what fails."""
    skip_unusable(runner)

    @settings(max_examples=EXAMPLES)
    @given(family.drawn)
    def check(case: Case) -> None:
        report(faults(runner, [case], threads=(1, 3), runs=1))

    check()


def skip_unusable(runner: Runner) -> None:
    if not runner.usable():
        pytest.skip(f"this machine cannot run {runner.name}")


def report(found: list[str]) -> None:
    if found:
        pytest.fail(f"{len(found)} faults:\n" + "\n".join(found[:25]), pytrace=False)
