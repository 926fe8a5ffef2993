"""What the Cortex-M backend can do: the CPU backend's kernels, compiled for it."""

from __future__ import annotations

from dataclasses import replace

from edgekit.backends import Capability
from edgekit.backends.cpu.capability import CPU

CORTEX_M: Capability = replace(CPU, name="cortex-m", backend=2, architectures=("armv7e-m",), caches=False)
