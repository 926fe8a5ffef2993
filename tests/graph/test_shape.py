"""Ops that move data, judged by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.graph.builder import Builder
from edgekit.graph.op import ShapeError
from edgekit.graph.ops.shape import Concat, Permute, Reshape, Slice, Unslice
from edgekit.graph.value import Type
from tests.graph.judge import check, node_of, normal

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@given(shapes, st.data())
def test_permute(shape, data):
    order = data.draw(st.permutations(range(len(shape))))
    check(Permute.of(*order), [normal(shape)], lambda x: x.permute(order))


@given(shapes, st.data())
def test_reshape(shape, data):
    size = int(np.prod(shape))
    target = data.draw(st.sampled_from([(size,), (1, size), (size, 1, 1), shape[::-1]]))
    check(Reshape.to(target), [normal(shape)], lambda x: x.reshape(target))


def test_reshape_of_a_scalar():
    check(Reshape.to((1, 1)), [normal(())], lambda x: x.reshape(1, 1))
    check(Reshape.to(()), [normal((1, 1))], lambda x: x.reshape(()))


@given(st.data())
def test_slice_and_its_transpose(data):
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    axis = data.draw(st.integers(0, len(shape) - 1))
    size, step = shape[axis], data.draw(st.integers(1, 3))
    start = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, (size - 1 - start) // step + 1))
    index = tuple(slice(start, start + (length - 1) * step + 1, step) if i == axis else slice(None) for i in range(len(shape)))
    check(Slice(axis, start, length, step), [normal(tuple(shape))], lambda x: x[index])

    def unslice(x):
        whole = torch.zeros(shape, dtype=x.dtype)
        whole[index] = x
        return whole

    shape_in = (*shape[:axis], length, *shape[axis + 1 :])
    check(Unslice(axis, start, size, step), [normal(shape_in)], unslice)


@given(shapes, st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
def test_concat(shape, lengths, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = [normal((*shape[:axis], n, *shape[axis + 1 :]), i) for i, n in enumerate(lengths)]
    operands = [*parts, *[None] * (8 - len(parts))]
    check(Concat(axis), operands, lambda *xs: torch.cat([x for x in xs if x is not None], axis))


def test_moving_data_costs_nothing():
    build = Builder()
    node, _ = node_of(build, Permute.of(1, 0), [normal((3, 4))])
    assert node.op.flops(node) == 0


@pytest.mark.parametrize("op", [Slice(1, 0, 1), Slice(0, 2, 2), Slice(0, 0, 2, 2), Reshape.to((4,)), Permute.of(1, 0)])
def test_what_does_not_fit_is_refused(op):
    with pytest.raises(ShapeError):
        op.infer(Type((3,)) if not isinstance(op, Slice) or op.axis else Type((2,)))
