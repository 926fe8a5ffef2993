"""``edgekit compile`` and what follows, from a user's file to a trained run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import edgekit as package
from edgekit.sessions import calibrate
from edgekit.telemetry import read_run
from tests.support.command import Run, document

MODEL = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )
    return model.eval(), (torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))

def training():
    model, example = make()
    return model.train(), example

def unsupported():
    class Net(nn.Module):
        def forward(self, x):
            return torch.linalg.svd(x.flatten(2)[:, 0, None].expand(-1, 3, -1))[1]
    return Net().eval(), (torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    Path("data").mkdir()
    targets = rng.integers(0, 3, 24)
    np.save("data/inputs.npy", (rng.standard_normal((24, 1, 8, 8)) * 0.3 + targets[:, None, None, None]).astype(np.float32))
    np.save("data/targets.npy", targets)
    return "net.py:make"


def test_the_whole_way(model: str, edgekit: Run) -> None:
    optimizer = "sgd:lr=0.1,momentum=0.9,weight_decay=1e-4,nesterov"
    arguments = ("--update", "last:2", "--optimizer", optimizer, "--batch", "4", "--clip-norm", "5", "--accumulate", "2")
    code, out, err = edgekit("compile", model, *arguments, "--board", "local", "--out", "net.ekp", "--json")
    assert code == 0, err
    made = document(out)
    program = package.load("net.ekp")
    assert made["sha256"] == program.sha256.hex()
    assert made["bytes"] == Path("net.ekp").stat().st_size
    assert (program.header.batch, program.header.accumulate) == (4, 2)
    code, out, err = edgekit("train", "local", "net.ekp", "--data", "data", "--epochs", "20", "--run-dir", "run", "--json")
    assert code == 0, err
    run = read_run(Path("run"))
    assert len(run.records) == 60
    assert run.records[-1].loss < run.records[0].loss / 2
    assert run.facts["model_digests"]["0.weight"]
    assert run.facts["optimizer"]["nesterov"] is True
    accuracy = document(edgekit("evaluate", "local", "net.ekp", "--data", "data", "--checkpoint", "run", "--json")[1])["accuracy"]
    assert accuracy > 0.9
    code, out, _ = edgekit("bench", "local", "net.ekp", "--steps", "2", "--profile", "--json")
    assert code == 0
    assert {"forward", "backward", "update"} == {op["phase"] for op in document(out)["ops"]}


def test_a_table_of_fractions_chooses_what_is_updated(model: str, edgekit: Run) -> None:
    Path("scheme.toml").write_text('[update]\n"3.weight" = 0.5\n"7.*" = 1.0\n')
    code, _, err = edgekit("compile", model, "--update", "scheme.toml", "--out", "net.ekp")
    assert code == 0, err
    assert set(package.load("net.ekp").updated_parameters()) == {"3.weight", "7.weight", "7.bias"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("net.py:training", "--out", "x.ekp"), 2, "eval"),
        (("net.py:unsupported", "--out", "x.ekp"), 3, "svd"),
        (("net.py:make", "--update", "everything", "--out", "x.ekp"), 2, "everything"),
        (("net.py:make", "--update", "none.toml", "--out", "x.ekp"), 2, "none.toml"),
        (("net.py:make", "--loss", "hinge", "--out", "x.ekp"), 2, "hinge"),
        (("net.py:make", "--board", "toaster", "--out", "x.ekp"), 2, "toaster"),
        (("net.py:make", "--optimizer", "adam", "--out", "x.ekp"), 2, "adam"),
        (("net.py:make", "--clip-norm", "0", "--out", "x.ekp"), 2, "clip-norm"),
        (("net.py:make", "--out", "no/x.ekp"), 9, "x.ekp"),
    ],
)
@pytest.mark.usefixtures("model")
def test_what_cannot_be_compiled_is_named(arguments: tuple[str, ...], code: int, words: str, edgekit: Run) -> None:
    got, out, err = edgekit("compile", *arguments)
    assert got == code, err
    assert words in err
    assert "Traceback" not in err
    assert out == ""
    assert list(Path().rglob("*.ekp*")) == []


def test_another_boards_program_is_refused_here(model: str, edgekit: Run) -> None:
    here = next(board for board in document(edgekit("boards", "--json")[1]) if board["id"] == "local")
    foreign = "generic-aarch64" if "x86" in here["architecture"] else "generic-x86-64"
    assert edgekit("compile", model, "--board", foreign, "--out", "net.ekp")[0] == 0
    code, _, err = edgekit("evaluate", "local", "net.ekp", "--data", "data")
    assert code == 2
    assert "--board" in err


def test_a_board_is_calibrated_and_compiled_for(model: str, edgekit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CONFIG", str(Path.cwd() / "config"))
    monkeypatch.setattr(calibrate, "SIZES", (4,))
    monkeypatch.setattr(calibrate, "CHANNELS", (16,))
    monkeypatch.setattr(calibrate, "_FLOPS", 1)
    dense = "nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)"
    Path("net.py").write_text(MODEL.replace("nn.Conv2d(8, 8, 3, stride=2, padding=1)", dense))
    code, out, err = edgekit("bench", "local", "--calibrate", "--json")
    assert code == 0, err
    made = document(out)
    assert made["file"] == str(Path.cwd() / "config" / "boards" / "local.costs.json")
    assert len(made["layers"]) == 1
    code, out, err = edgekit("compile", model, "--out", "net.ekp", "--json")
    assert code == 0, err
    assert document(out)["costs"] == {key: value for key, value in made.items() if key not in ("file", "layers")}
    assert "the costs measured for local on" in edgekit("inspect", "net.ekp")[1]
    for arguments in (("bench", "local"), ("bench", "local", "net.ekp", "--calibrate")):
        code, _, err = edgekit(*arguments)
        assert code == 2
        assert "--calibrate" in err


def test_in_int8(model: str, edgekit: Run) -> None:
    code, out, err = edgekit("compile", model, "--quantize", "data", "--optimizer", "sgd:lr=0.1", "--out", "net.ekp", "--json")
    assert code == 0, err
    assert document(out)["board"] == "local"
    assert set(package.load("net.ekp").metadata["int8_inputs"]) == {"0"}
    code, out, err = edgekit("train", "local", "net.ekp", "--data", "data", "--epochs", "2", "--json")
    assert code == 0, err
    code, _, err = edgekit("compile", model, "--quantize", "nowhere", "--out", "net.ekp")
    assert code != 0
    assert "cannot calibrate with nowhere/inputs.npy" in err


def test_the_prefix_in_int8(model: str, edgekit: Run) -> None:
    common = ("compile", model, "--update", "head", "--int8-prefix", "data", "--out", "net.ekp")
    code, out, err = edgekit(*common, "--json")
    assert code == 0, err
    cost = document(out)["int8_cost"]
    assert cost["samples"] == 6
    assert set(cost["loss"]) == {"float32", "int8"}
    assert "frozen prefix in int8" in edgekit("inspect", "net.ekp")[1]
    code, out, err = edgekit("train", "local", "net.ekp", "--data", "data", "--epochs", "2", "--json")
    assert code == 0, err
    code, _, err = edgekit(*common, "--quantize", "data")
    assert code == 2
    assert "exclude each other" in err


def test_compile_fits_a_memory_budget(model: str, edgekit: Run) -> None:
    common = ("compile", model, "--batch", "4", "--out", "m.ekp")
    assert edgekit(*common, "--memory", "1MB")[0] == 0
    whole = package.load("m.ekp").header
    code, _, err = edgekit(*common, "--memory", "1kB")
    assert code == 2
    assert "the smallest program for this model" in err
    least = re.findall(r"budget of (\d+) bytes", " ".join(err.split()))[0]
    assert edgekit(*common, "--memory", f"{least}B")[0] == 0
    small = package.load("m.ekp").header
    assert (whole.batch, whole.accumulate) == (4, 1)
    assert small.batch * small.accumulate == 4
    assert small.arena_bytes < whole.arena_bytes
