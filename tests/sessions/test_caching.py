"""The frozen prefix's cache as a user of ``train`` meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.program import Program
from edgekit.sessions import Device
from tests.runner.programs import prefixed, sample_data

DATA = dict(zip(("inputs", "targets"), sample_data(22), strict=True))


def train(device: Device, program: Program, **options: Any) -> tuple[dict[str, Any], Any, Path]:
    session = device.train(program, DATA, reset=True, **options)
    result = session.result()
    return session.state(), session.cached, result.folder


def test_it_is_used_where_samples_come_again_and_changes_nothing(device: Device) -> None:
    program = prefixed()
    plain, cached, _ = train(device, program, epochs=3, cache="off")
    assert cached is None
    state, cached, folder = train(device, program, epochs=3)
    assert (cached.storage, cached.rows, cached.samples, cached.why) == ("float32", 22, 22, "")
    assert json.loads((folder / "run.json").read_text())["result"]["cache"] == cached.model_dump()
    assert not (folder / "prefix.cache").exists()
    for name, array in plain.items():
        np.testing.assert_array_equal(state[name], array)


def test_one_epoch_needs_none(device: Device) -> None:
    assert train(device, prefixed(), epochs=1)[1] is None
    assert train(device, prefixed(), epochs=1, cache="float16")[1].storage == "float16"


def test_a_budget_that_is_too_small_is_told(device: Device) -> None:
    _, cached, _ = train(device, prefixed(), epochs=2, cache_budget=100)
    assert (cached.rows, cached.why) == (0, "it would take 1472 bytes, the budget is 100")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache": "int4"}, "cache is 'int4'"),
        ({"cache_budget": 0}, "0 bytes"),
        ({"cache": "float32", "stream": True}, "the data set is streamed"),
    ],
)
def test_what_cannot_be_is_refused(device: Device, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        device.train(prefixed(), DATA, epochs=2, **options)


def test_a_program_without_a_prefix_has_none(device: Device, program: Program) -> None:
    with pytest.raises(InputError, match="nothing is frozen at the program's beginning"):
        device.train(program, DATA, epochs=2, cache="float32")
    assert train(device, program, epochs=2)[1] is None


def test_the_report_tells_what_a_cache_would_hold(program: Program) -> None:
    prefix = prefixed().report().prefix
    assert prefix is not None
    assert prefix.sample_bytes == 32
    assert 0.5 < prefix.share < 1
    assert "a sample where the board caches it" in prefixed().summary()
    assert program.report().prefix is None
