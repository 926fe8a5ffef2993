"""Tables of what convolutions cost: which one counts for a board, and files with mistakes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from edgekit.board import load_board
from edgekit.costs import KINDS, Costs, Layer, load_costs, version
from edgekit.errors import InputError
from edgekit.graph.ops.conv import Algorithm

PRODUCT, WINOGRAD = Algorithm.PRODUCT, Algorithm.WINOGRAD


def table(*layers: Layer, board: str = "raspberry-pi-5", architecture: str = "aarch64") -> Costs:
    """A table of these layers; without any, of one."""
    one = Layer(results=100, inputs=32, outputs=32, **dict.fromkeys(KINDS, (1.0, 2.0)))
    return Costs(
        board=board,
        architecture=architecture,
        machine="ssh://pi@kitchen",
        isa="neon",
        threads=4,
        edgekit=version(),
        date=date(2026, 1, 2),
        layers=layers or (one,),
    )


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    return tmp_path / "boards"


def test_what_is_saved_is_found_again(config: Path) -> None:
    assert load_costs(load_board("raspberry-pi-5")) is None
    costs = table()
    path = costs.save()
    assert path.parent == config
    assert load_costs(load_board("raspberry-pi-5")) == costs
    assert load_costs(load_board("raspberry-pi-4b")) is None
    assert costs.facts()["date"] == "2026-01-02"


def test_a_boards_own_table_comes_before_the_general_boards() -> None:
    general = table(board="generic-aarch64")
    general.save()
    assert load_costs(load_board("raspberry-pi-5")) == general
    own = table()
    own.save()
    assert load_costs(load_board("raspberry-pi-5")) == own
    assert load_costs(load_board("raspberry-pi-4b")) == general


def test_a_table_comes_with_edgekit_for_x86() -> None:
    shipped = load_costs(load_board("generic-x86-64"))
    assert shipped is not None
    assert shipped.faster("forward", 8 * 28 * 28, 128, 128) is WINOGRAD
    assert shipped.faster("forward", 16, 256, 256) is PRODUCT
    measured = table(board="generic-x86-64", architecture="x86_64")
    measured.save()
    assert load_costs(load_board("generic-x86-64")) == measured


def test_the_nearest_shape_counts() -> None:
    layers = [
        Layer(results=results, inputs=inputs, outputs=64, **dict.fromkeys(KINDS, (1.0, 2.0 if results * inputs > 1000 else 0.5)))
        for results in (16, 784)
        for inputs in (16, 256)
    ]
    costs = table(*layers)
    assert costs.faster("forward", 20, 20, 64) is PRODUCT
    assert costs.faster("forward", 20, 200, 64) is WINOGRAD
    assert costs.faster("forward", 111, 16, 64) is PRODUCT, "nearer to 16 than to 784 by their ratios"
    assert costs.faster("forward", 113, 16, 64) is WINOGRAD


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text[:-20], "the file"),
        (lambda text: text.replace('"isa"', '"set"'), "isa"),
        (lambda text: text.replace("1.0, 2.0", "1.0"), "frozen"),
        (lambda text: text.replace("2.0", "NaN"), "frozen"),
        (lambda text: text.replace('"inputs": 32', '"inputs": 0'), "inputs"),
        (lambda text: json.dumps({**json.loads(text), "layers": []}), "layers"),
        (lambda text: text.replace('"aarch64"', '"x86_64"'), "x86_64"),
    ],
)
def test_a_bad_table_is_an_error_with_the_next_command(change: Callable[[str], str], named: str) -> None:
    path = table().save()
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=named) as caught:
        load_costs(load_board("raspberry-pi-5"))
    assert str(path) in caught.value.message
    assert "--calibrate" in caught.value.hint


def test_a_table_of_another_edgekit_counts_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    old = table().model_copy(update={"edgekit": "0.0.1"})
    old.save()
    with caplog.at_level(logging.INFO, "edgekit"):
        assert load_costs(load_board("raspberry-pi-5")) == old
    assert "0.0.1" in caplog.text
    assert "--calibrate" in caplog.text
