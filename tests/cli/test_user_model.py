"""MODEL and --optimizer: what a user may write, and what they are told when it does not work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit.errors import InputError
from edgekit.frontends.torch.batch import resize_batch
from edgekit.training.optimizers import SGD
from edgekit.user_model import load_model, parse_optimizer

GOOD = """
import torch
from helper import WIDTH
def make():
    return torch.nn.Linear(WIDTH, 2), (torch.zeros(4, WIDTH), torch.zeros(4, dtype=torch.int64))
"""


def test_a_file_can_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("WIDTH = 3")
    (tmp_path / "net.py").write_text(GOOD)
    model, (inputs, targets) = load_model(f"{tmp_path}/net.py:make")
    assert isinstance(model, torch.nn.Linear)
    assert (inputs.shape, targets.shape) == ((4, 3), (4,))


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        ("", "net.py", "names no model"),
        ("", "other.py:make", "no file"),
        ("", "net.py:make", "no callable 'make'"),
        ("make = 3", "net.py:make", "no callable 'make'"),
        ("\n\nraise ValueError('no weights')", "net.py:make", "net.py, line 3: ValueError: no weights"),
        ("def make(:", "net.py:make", "net.py, line 1: SyntaxError"),
        ("import no_such_module", "net.py:make", "line 1: ModuleNotFoundError"),
        ("def make():\n    return 1 / 0", "net.py:make", "line 2: ZeroDivisionError"),
        ("def make(x): pass", "net.py:make", "TypeError"),
        ("def make(): return 1, 2", "net.py:make", r"returns \(int, int\)"),
        ("import torch\ndef make(): return torch.nn.ReLU()", "net.py:make", "returns ReLU"),
        ("import torch\ndef make(): return torch.nn.ReLU(), torch.ones(1)", "net.py:make", r"returns \(ReLU, Tensor\)"),
    ],
)
def test_what_does_not_work_is_named(code: str, name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(InputError, match=words) as caught:
        load_model(f"{tmp_path}/{name}")
    assert caught.value.hint


def test_a_batch_is_cut_or_repeated() -> None:
    inputs, targets = resize_batch((torch.arange(6).reshape(3, 2), torch.arange(3)), 7)
    assert targets.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert inputs[4].tolist() == [2, 3]
    assert resize_batch((torch.zeros(3, 2), torch.arange(3)), 1)[1].tolist() == [0]


def test_an_optimizer_is_read() -> None:
    assert parse_optimizer("sgd:lr=0.01") == SGD(lr=0.01)
    assert parse_optimizer("sgd:lr=1e-2, momentum=0.9,weight_decay=1e-4,nesterov") == SGD(0.01, 0.9, 1e-4, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adam:lr=1", "no optimizer 'adam'"),
        ("sgd", "learning rate"),
        ("sgd:lr=fast", "lr=fast is no number"),
        ("sgd:lr", "'lr' is no option"),
        ("sgd:lr=1,beta=2", "'beta=2' is no option"),
        ("sgd:lr=1,nesterov=maybe", "nesterov"),
        ("sgd:lr=-1", "lr"),
        ("sgd:lr=nan", "lr"),
        ("sgd:lr=1,nesterov", "nesterov"),
    ],
)
def test_an_optimizer_that_does_not_work_is_named(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_optimizer(text)
