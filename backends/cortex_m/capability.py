"""What the Cortex-M backend can do: what the CPU backend can, but for steps within products. Its products are its own, its
other kernels the CPU's."""

from __future__ import annotations

from dataclasses import replace

from edgekit.backends import Capability
from edgekit.backends.cpu.capability import CPU

from edgekit.graph.ops.update import LinearSgd

CORTEX_M: Capability = replace(
    CPU,
    name="cortex-m",
    backend=2,
    architectures=("armv7e-m",),
    ops=CPU.ops - {LinearSgd.code},
    caches=False,
    small=True,
)
