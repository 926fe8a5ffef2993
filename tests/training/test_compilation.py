"""``edgekit.compile``: what the Program holds, what its metadata says, and what is refused."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import nn

import edgekit
from edgekit.compilation import compile as compile_model
from edgekit.errors import InputError, UnsupportedError
from edgekit.graph.model import Binding
from tests.zoo import lively, mobilenet_v2, mobilenet_v3, preact_resnet, resnet18

CLASSES = torch.tensor([0, 1])


def ops_of(program: edgekit.Program, entry: str = "train_step") -> list[str]:
    return [record.op.name for record in program.entries[entry].ops]


def test_the_public_function_is_this_one() -> None:
    assert edgekit.compile is compile_model


def test_program_and_metadata() -> None:
    model = lively(mobilenet_v2(0.35, 10))
    before = copy.deepcopy(model.state_dict())
    stages: list[str] = []
    example = (torch.randn(2, 3, 32, 32), CLASSES)
    sgd = edgekit.SGD(lr=0.1, momentum=0.9)
    program = edgekit.compile(model, example, update="last:6", optimizer=sgd, name="mine", progress=stages.append)
    assert stages == ["capture", "scheme", "fold", "differentiate", "compile"]
    assert set(program.seconds) == set(stages)
    again = edgekit.compile(model, example, update="last:6", optimizer=sgd, name="mine")
    assert again.data == program.data, "a board stores it once"
    assert (program.metadata["model"], program.metadata["board"], program.metadata["loss"]) == ("mine", "local", "cross_entropy")
    assert program.metadata["update"]["spec"] == "last:6"
    assert "stay frozen" in program.summary()
    bindings = [Binding.from_json(b) for b in program.metadata["bindings"]]
    for binding in bindings:
        assert program.state_init(binding.value).shape == binding.layout.shape
    trained = {name for binding in bindings for name in binding.parameters}
    assert {name.split(".")[1] for name in trained if name.startswith("features")} == {str(i) for i in range(12, 18)}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training


def test_nothing_that_no_update_needs_is_in_the_program() -> None:
    """The head alone: one weight gradient, no input gradient, no mask and no saved activation before it."""
    model, example = lively(mobilenet_v2(0.35, 10)), (torch.randn(2, 3, 32, 32), CLASSES)
    ops = ops_of(edgekit.compile(model, example, update="head"))
    assert [op for op in ops if op.endswith("grad")] == ["cross_entropy_grad"]
    assert (ops.count("linear_sgd"), ops.count("sgd_update")) == (1, 1), "the weight's gradient with its step, the bias's step"
    assert "apply_mask" not in ops
    ops = ops_of(edgekit.compile(model, example, update={"classifier.1.bias": 1.0}))
    assert [op for op in ops if op.endswith("grad")] == ["cross_entropy_grad"], "a bias needs no activation"
    ops = ops_of(edgekit.compile(model, example, update="bias:3"))
    assert not [op for op in ops if op.endswith("weight_grad")]
    for entry in ("evaluate", "predict"):
        assert not [op for op in ops_of(edgekit.compile(model, example), entry) if op.endswith("grad")]


@pytest.mark.parametrize("make", [pytest.param(mobilenet_v2, marks=pytest.mark.slow), mobilenet_v3, resnet18, preact_resnet])
@pytest.mark.parametrize("update", ["full", "last:2", {"*": 1.0}, {"*weight": 0.25}], ids=str)
def test_no_batch_norm_and_one_permute(make, update: edgekit.compilation.Update) -> None:  # type: ignore[no-untyped-def]
    program = edgekit.compile(lively(make(classes=10)), (torch.randn(2, 3, 32, 32), CLASSES), update=update)
    for entry in program.entries:
        ops = ops_of(program, entry)
        assert ops.count("permute") == (entry != "suffix"), "the image's"
        assert ops.count("affine") == 0 or make is preact_resnet or update != "full"


def test_accumulation_makes_an_update_entry() -> None:
    program = edgekit.compile(preact_resnet(), (torch.randn(2, 3, 16, 16), CLASSES), accumulate=4, clip_norm=1.0)
    assert set(program.entries) == {"train_step", "update", "evaluate", "predict"}
    assert program.metadata["optimizer"]["clip_norm"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board": "no-such-board"}, "no-such-board"),
        ({"optimizer": torch.optim.SGD}, "the optimizer is a"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"clip_norm": -1.0}, "clip"),
        ({"update": "last:99"}, "the model has"),
        ({"loss": "hinge"}, "unknown loss"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        edgekit.compile(preact_resnet(), (torch.randn(2, 3, 16, 16), CLASSES), **options)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_loss_that_nothing_trained_reaches() -> None:
    model = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(InputError):
        edgekit.compile(model, (torch.randn(2, 4), CLASSES), loss=lambda o, t: torch.ones(()))  # noqa: ARG005


def test_board_of_another_backend() -> None:
    board = edgekit.board.load_board("local").model_copy(update={"backend": "cortex-m"})
    with pytest.raises(UnsupportedError, match="cortex-m"):
        edgekit.compile(preact_resnet(), (torch.randn(2, 3, 16, 16), CLASSES), board=board)


def test_compile_time() -> None:
    """MobileNetV2-1.0 in under 15 s of processor time, so that a busy machine does not count."""
    model, example = mobilenet_v2(1.0, 1000), (torch.randn(8, 3, 224, 224), torch.randint(1000, (8,)))
    start = time.process_time()
    edgekit.compile(model, example, update="full")
    assert time.process_time() - start < 15
