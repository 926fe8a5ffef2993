"""Measuring what convolutions cost, on the real runner."""

from __future__ import annotations

import pytest

from edgekit.costs import KINDS
from edgekit.errors import InputError
from edgekit.graph.ops.conv import Algorithm
from edgekit.sessions import Device, calibrate


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four shapes, and little work for each."""
    monkeypatch.setattr(calibrate, "SIZES", (3, 20))
    monkeypatch.setattr(calibrate, "CHANNELS", (16, 32))
    monkeypatch.setattr(calibrate, "_FLOPS", 4_000_000)


def test_a_table_has_every_shape_with_speeds_that_can_be(device: Device) -> None:
    told: list[tuple[int, int]] = []
    costs = calibrate.calibrate(device, lambda done, total: told.append((done, total)))
    assert told == [(i, 8) for i in range(8)]
    assert (costs.board, costs.threads, costs.isa) == (device.board.id, 1, device.info.isa)
    shapes = {(row.results, row.inputs, row.outputs) for row in costs.layers}
    assert shapes == {(size * size, i, o) for size in (3, 20) for i in (16, 32) for o in (16, 32)}
    peak = device.client.limits().flops / 1e9
    for row in costs.layers:
        for kind in KINDS:
            product, winograd = getattr(row, kind)
            assert 0 < product < 1.5 * peak, f"{row.results} {kind}: more than the board can do"
            assert 0 < winograd < 2.25 * 1.5 * peak
    assert costs.layers[0].results == 9
    assert costs.layers[0].faster("frozen") is Algorithm.PRODUCT


def test_the_ops_timed_are_those_of_the_table() -> None:
    program = calibrate.layer_program(5, 16, 32)
    algorithms = [getattr(o.op, "algorithm", None) for o in program.ops]
    assert algorithms == [Algorithm.PRODUCT, Algorithm.WINOGRAD] * 2 * len(KINDS) + [None]
    names = [o.op.name for o in program.ops[::4]]
    assert names == ["conv2d", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "reduce"]


def test_a_backend_without_a_choice_is_refused(device: Device) -> None:
    device.info = device.info.model_copy(update={"backend": "cortex-m"})
    with pytest.raises(InputError, match="nothing to calibrate"):
        calibrate.calibrate(device)
