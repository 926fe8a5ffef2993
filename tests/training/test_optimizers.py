"""Options out of range are errors that say what to give."""

from __future__ import annotations

import math

import pytest

from edgekit.errors import InputError
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import everything, inverted_residuals, train_only


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr is 0"),
        ({"lr": -1}, "lr is -1"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"weight_decay": math.inf}, "weight_decay is inf"),
        ({"nesterov": True}, "nesterov needs momentum"),
    ],
)
def test_sgd_says_what_is_wrong(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SGD(**options)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize(("options", "message"), [({"accumulate": 0}, "accumulate is 0"), ({"clip_norm": -1.0}, "clip at is -1")])
def test_plan_says_what_is_wrong(options: dict[str, float], message: str) -> None:
    _net, model = inverted_residuals()
    with pytest.raises(InputError, match=message):
        make_plan(model, everything(model), SGD(0.1), **options)  # type: ignore[arg-type]


def test_nothing_to_train_is_an_error() -> None:
    _net, model = inverted_residuals()
    with pytest.raises(InputError, match="nothing that is trained"):
        make_plan(model, train_only(model, {}), SGD(0.1))


def test_state_beyond_the_parameters_is_what_the_optimizer_needs() -> None:
    def names(optimizer: SGD, accumulate: int) -> set[str]:
        _net, model = inverted_residuals()
        plan = make_plan(model, train_only(model, {"conv1.bias": None}), optimizer, accumulate=accumulate)
        return {v.name for v in plan["train_step"].graph.state}

    assert names(SGD(0.1), 1) == {"conv1.bias"}
    assert names(SGD(0.1, 0.9), 1) == {"conv1.bias", "conv1.bias.velocity"}
    assert names(SGD(0.1), 2) == {"conv1.bias", "conv1.bias.gradient"}
