"""Losses, softmax and the metric, judged by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from edgekit.graph.ops.function import Reduction
from edgekit.graph.ops.loss import ArgmaxMatch, CrossEntropy, NllLoss, Softmax
from tests.graph.judge import check, normal

WORDS = {Reduction.SUM: "sum", Reduction.MEAN: "mean"}


@st.composite
def labelled(draw):
    """(scores, targets, ignore_index), at least one target of which counts."""
    lead = tuple(draw(st.lists(st.integers(1, 4), max_size=2)))
    classes = draw(st.integers(1, 9))
    ignore = draw(st.sampled_from([-100, 0, classes - 1, -1]))
    targets = np.random.default_rng(draw(st.integers(0, 99))).integers(0, classes, lead).astype(np.int32)
    targets = np.where(np.arange(targets.size).reshape(lead) % 3 == 1, ignore, targets).astype(np.int32)
    if classes == 1 or np.all(targets == ignore):
        ignore = -100
        targets = np.zeros(lead, np.int32)
    return normal((*lead, classes)) * 5, targets, ignore


def flat(scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return scores.reshape(-1, scores.shape[-1]), targets.reshape(-1).long()


@given(labelled(), st.sampled_from(list(WORDS)), st.sampled_from([0.0, 0.1, 1.0]))
def test_cross_entropy(labels, reduction, smoothing):
    logits, targets, ignore = labels
    judge = lambda x, t: F.cross_entropy(  # noqa: E731
        *flat(x, t), reduction=WORDS[reduction], ignore_index=ignore, label_smoothing=smoothing
    )
    check(CrossEntropy(reduction, ignore, smoothing), [logits, targets], judge)


@given(labelled(), st.sampled_from(list(WORDS)))
def test_nll_loss(labels, reduction):
    scores, targets, ignore = labels
    judge = lambda x, t: F.nll_loss(*flat(x, t), reduction=WORDS[reduction], ignore_index=ignore)  # noqa: E731
    check(NllLoss(reduction, ignore), [scores, targets], judge)


def test_a_mean_over_nothing_is_not_a_number():
    logits, targets = normal((3, 4)), np.full(3, -100, np.int32)
    assert np.isnan(CrossEntropy().reference(logits, targets)[0])
    assert np.isnan(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets).long()).numpy())
    assert CrossEntropy(Reduction.SUM).reference(logits, targets)[0] == 0


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3, 7)])
def test_softmax(log, shape):
    check(Softmax(log), [normal(shape) * 10], lambda x: F.log_softmax(x, -1) if log else F.softmax(x, -1))


def test_softmax_of_large_numbers():
    x = np.array([[1000.0, 999.0, -1000.0]])
    with np.errstate(over="raise", invalid="raise"):
        check(Softmax(), [x], lambda t: F.softmax(t, -1))
        check(CrossEntropy(), [x, np.array([1], np.int32)], lambda t, k: F.cross_entropy(t, k.long()))


def test_argmax_match():
    scores = np.array([[1.0, 3.0, 3.0], [9.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    (correct,) = ArgmaxMatch(7).reference(scores, np.array([1, 2, 7], np.int32))
    assert correct.tolist() == [1, 0, 2]
    assert correct.dtype == np.uint8
