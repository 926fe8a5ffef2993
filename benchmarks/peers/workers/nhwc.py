"""Parameters for frameworks of NHWC images: HWIO filters, linear weights [in, out]; and back.

A depthwise filter becomes [h, w, 1, channels], or [h, w, channels, 1] where it is named in ``depthwise``.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from benchmarks.peers.job import Array

_THERE: dict[int, tuple[int, ...]] = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
_BACK: dict[int, tuple[int, ...]] = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_DEPTHWISE = (2, 3, 0, 1)  #: its own inverse


def to_nhwc(arrays: Mapping[str, Array], depthwise: Container[str] = ()) -> dict[str, Array]:
    return {name: _moved(a, _DEPTHWISE if name in depthwise else _THERE[a.ndim]) for name, a in arrays.items()}


def from_nhwc(arrays: Mapping[str, Array], depthwise: Container[str] = ()) -> dict[str, Array]:
    return {name: _moved(a, _DEPTHWISE if name in depthwise else _BACK[a.ndim]) for name, a in arrays.items()}


def _moved(array: Array, axes: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(array.transpose(axes))
