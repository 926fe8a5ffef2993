"""Permutations of axes, as ``numpy.transpose`` takes them."""

from __future__ import annotations

Perm = tuple[int, ...]


def is_identity(perm: Perm) -> bool:
    return perm == tuple(range(len(perm)))


def inverse(perm: Perm) -> Perm:
    return tuple(sorted(range(len(perm)), key=lambda i: perm[i]))


def compose(outer: Perm, inner: Perm) -> Perm:
    """The permutation that does ``inner`` first: x.transpose(inner).transpose(outer)."""
    return tuple(inner[p] for p in outer)


def moves_nothing(shape: tuple[int, ...], perm: Perm) -> bool:
    """Whether the permutation of an array of this shape leaves memory as it is: only axes of length 1 change places."""
    moved = [p for p in perm if shape[p] != 1]
    return moved == sorted(moved)
