"""Data sets are refused on the host: each mistake has its own words, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgekit
from edgekit.errors import DataError
from edgekit.sessions.data import check_data
from tests.runner.programs import Classifier

PROGRAM = Classifier(batch=4).program()


def good(samples: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"inputs": rng.random((samples, 3), np.float32), "targets": rng.integers(0, 4, samples)}


def with_value(name: str, index: Any, value: Any) -> dict[str, Any]:
    data = good()
    data[name][index] = value
    return data


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no targets": ({"inputs": good()["inputs"]}, "'targets' is missing.*the data set has inputs"),
    "no inputs": ({"input": good()["inputs"], "targets": good()["targets"]}, "'inputs' is missing.*inputs, targets"),
    "nothing": ({}, "missing"),
    "wrong sample shape": ({**good(), "inputs": np.zeros((8, 4), np.float32)}, r"inputs has shape \(8, 4\).*\(samples, 3\)"),
    "no sample axis": ({**good(), "inputs": np.float32(1)}, r"inputs has shape \(\)"),
    "targets one-hot": ({**good(), "targets": np.zeros((8, 4), np.int64)}, r"targets has shape \(8, 4\)"),
    "integer inputs": ({**good(), "inputs": np.zeros((8, 3), np.int64)}, r"inputs is int64.*astype\(.float32.\)"),
    "half inputs": ({**good(), "inputs": np.zeros((8, 3), np.float16)}, "inputs is float16"),
    "complex inputs": ({**good(), "inputs": np.zeros((8, 3), complex)}, "inputs is complex128"),
    "text inputs": ({**good(), "inputs": np.array([["a"] * 3] * 8)}, "inputs is str"),
    "float targets": ({**good(), "targets": np.zeros(8)}, r"targets is float64.*astype\(.int64.\)"),
    "boolean targets": ({**good(), "targets": np.zeros(8, bool)}, "targets is bool"),
    "ragged": ({**good(), "inputs": [[1.0], [1.0, 2.0]]}, "inputs is no array"),
    "different lengths": ({**good(), "targets": np.zeros(7, np.int64)}, "inputs 8, targets 7"),
    "empty": (good(0), "empty"),
    "less than a batch": (good(3), "3 samples fill no batch of 4"),
    "NaN": (with_value("inputs", (5, 1), np.nan), "inputs holds nan in sample 5"),
    "infinity": (with_value("inputs", (7, 2), -np.inf), "inputs holds -inf in sample 7"),
    "label too large": (with_value("targets", 6, 4), "targets holds 4 in sample 6.*0 to 3"),
    "label negative": (with_value("targets", 2, -1), "targets holds -1 in sample 2"),
    "label huge": (with_value("targets", 2, 2**40), "targets holds 1099511627776"),
}


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
def test_a_mistake_in_arrays_is_named(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=f"(?s){words}"):
        check_data(data, PROGRAM, "train_step")


@pytest.mark.parametrize(("data", "words"), [(d, w) for n, (d, w) in BAD.items() if n != "ragged"])
def test_a_mistake_in_a_folder_is_named_with_the_folder(data: dict[str, Any], words: str, tmp_path: Path) -> None:
    for name, array in data.items():
        np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(DataError, match=f"(?s){words.replace('the data set has inputs', '')}") as caught:
        check_data(tmp_path, PROGRAM, "train_step")
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("target", [np.int8, np.int16, np.int32, np.int64, np.uint8])
def test_the_types_of_the_specification_pass(dtype: type, target: type, tmp_path: Path) -> None:
    data = {"inputs": np.ones((5, 3), dtype), "targets": np.zeros(5, target)}
    placed = check_data(data, PROGRAM, "train_step").place(tmp_path / "new")
    assert np.load(placed / "inputs.npy").dtype == dtype
    assert np.load(placed / "targets.npy").dtype == target


def test_what_the_loss_ignores_is_no_bad_label() -> None:
    check_data(with_value("targets", 0, -100), PROGRAM, "train_step")


def test_tensors_pass_as_arrays(tmp_path: Path) -> None:
    inputs = torch.rand(8, 3, requires_grad=True)
    check_data({"inputs": inputs, "targets": torch.arange(8) % 4}, PROGRAM, "train_step").place(tmp_path)
    assert (np.load(tmp_path / "inputs.npy") == inputs.detach().numpy()).all()


def test_any_layout_of_an_array_is_written_plainly(tmp_path: Path) -> None:
    inputs = np.asfortranarray(good()["inputs"]).astype(">f4")
    check_data({**good(), "inputs": inputs}, PROGRAM, "train_step").place(tmp_path)
    written = np.load(tmp_path / "inputs.npy")
    assert written.flags.c_contiguous
    assert written.dtype.str == "<f4"
    assert (written == inputs).all()


def test_evaluation_takes_less_than_a_batch_and_prediction_no_targets() -> None:
    check_data(good(1), PROGRAM, "evaluate")
    check_data({"inputs": good(1)["inputs"]}, PROGRAM, "predict")


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        check_data(tmp_path / "none", PROGRAM, "train_step")
    check_data(good(), PROGRAM, "train_step").place(tmp_path)
    path = tmp_path / "inputs.npy"
    whole = path.read_bytes()
    for content in (b"", b"no array", whole[:40], whole[:-4]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"inputs\.npy cannot be read"):
            check_data(tmp_path, PROGRAM, "train_step")
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"inputs\.npy cannot be read"):
        check_data(tmp_path, PROGRAM, "train_step")
    with path.open("wb") as file:
        np.savez(file, good()["inputs"])
    with pytest.raises(DataError, match="several arrays"):
        check_data(tmp_path, PROGRAM, "train_step")
    for array in (np.asfortranarray(good()["inputs"]), good()["inputs"].astype(">f4")):
        np.save(path, array)
        with pytest.raises(DataError, match="C order"):
            check_data(tmp_path, PROGRAM, "train_step")


def test_a_nan_beyond_the_first_look_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.sessions.data._CHUNK", 7)
    with pytest.raises(DataError, match="sample 5"):
        check_data(with_value("inputs", (5, 0), np.nan), PROGRAM, "train_step")


def test_int8_inputs_are_made_on_the_host(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 4).eval()
    example = (torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    program = edgekit.compile(model, example, quantize=edgekit.Int8(torch.linspace(-1, 1, 24).reshape(8, 3)))
    data = good()
    data["inputs"][0] = [-5.0, 0.0, 5.0]
    checked = check_data(data, program, "train_step")
    scale, zero = program.metadata["int8_inputs"]["0"]
    found = checked.arrays["inputs"]
    assert found.dtype == np.int8
    assert found[0].tolist() == [-128, zero, 127]
    np.testing.assert_allclose((found[1:].astype(float) - zero) * scale, data["inputs"][1:], atol=0.51 * scale)
    np.save(tmp_path / "inputs.npy", data["inputs"])
    np.save(tmp_path / "targets.npy", data["targets"])
    assert check_data(tmp_path, program, "train_step").folder is None, "the folder's floats are not what the board takes"
    np.save(tmp_path / "inputs.npy", found)
    assert check_data(tmp_path, program, "train_step").folder == tmp_path
