"""Floats in fewer bits (firmware/runner/narrow.c), called as a shared library, against NumPy."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgekit.firmware.build import FIRMWARE
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path: Path = tmp_path_factory.mktemp("narrow") / "narrow.so"
    source = FIRMWARE / "runner" / "narrow.c"
    command = ["-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-fno-sanitize=undefined", str(source), "-o", str(path)]
    subprocess.run([sys.executable, *command], check=True)
    loaded = ctypes.CDLL(str(path))
    loaded.ek_byte_size.restype = ctypes.c_size_t
    loaded.ek_byte_size.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
    return loaded


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_every_half_becomes_its_float(library: ctypes.CDLL) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[np.isfinite(halves.view(np.float16))]
    floats = np.zeros(len(halves), np.float32)
    library.ek_half_to_float(pointer(floats), pointer(halves), ctypes.c_size_t(len(halves)))
    np.testing.assert_array_equal(floats.view(np.uint32), halves.view(np.float16).astype(np.float32).view(np.uint32))


def test_floats_round_to_the_nearest_half(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    exponents = np.exp2(rng.uniform(-14, 15.9, 100_000))
    halves = np.arange(0x0400, 0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    floats = np.concatenate([rng.standard_normal(100_000) * exponents, halves, ties, -ties, [0.0, -0.0, 65504, 65519]])
    floats = floats.astype(np.float32)
    floats = floats[np.abs(floats) < 65520]
    made = np.zeros(len(floats), np.uint16)
    library.ek_half_from_float(pointer(made), pointer(floats), ctypes.c_size_t(len(floats)))
    np.testing.assert_array_equal(made, floats.astype(np.float16).view(np.uint16))


def test_what_a_half_cannot_hold_becomes_the_largest_and_tiny_ones_are_near(library: ctypes.CDLL) -> None:
    floats = np.array([65520, 1e30, np.inf, -1e9, -np.inf, 3e-8, 2.5e-7, -4.1e-6, 1e-30], np.float32)
    made = np.zeros(len(floats), np.uint16)
    library.ek_half_from_float(pointer(made), pointer(floats), ctypes.c_size_t(len(floats)))
    assert made.view(np.float16)[:5].tolist() == [65504, 65504, 65504, -65504, -65504]
    np.testing.assert_allclose(made.view(np.float16)[5:].astype(np.float64), floats[5:], atol=2.0**-25)


@given(rows=st.integers(1, 40), columns=st.integers(1, 9), scale=st.floats(1e-20, 1e20), seed=st.integers(0, 99))
def test_bytes_are_within_half_a_step_of_each_columns_range(
    library: ctypes.CDLL, rows: int, columns: int, scale: float, seed: int
) -> None:
    floats = (np.random.default_rng(seed).standard_normal((rows, columns)) * scale + scale).astype(np.float32)
    floats[:, 0] = floats[0, 0]  # a column without a range
    kept = np.zeros(library.ek_byte_size(rows, columns) // 4 + 1, np.float32)
    again = np.zeros_like(floats)
    library.ek_byte_from_float(pointer(kept), pointer(floats), ctypes.c_size_t(rows), ctypes.c_size_t(columns))
    library.ek_byte_to_float(pointer(again), pointer(kept), ctypes.c_size_t(rows), ctypes.c_size_t(columns))
    step = (floats.max(0) - floats.min(0)) / 255
    assert np.all(np.abs(again - floats) <= 0.501 * step + 4e-7 * np.abs(floats).max(0))
    np.testing.assert_array_equal(again[:, 0], floats[:, 0])
