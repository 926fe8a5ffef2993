"""What cannot be captured says what, where and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.errors import InputError, UnsupportedError
from edgekit.frontends.torch import capture
from tests.frontends.test_capture import Of
from tests.zoo import preact_resnet

IMAGE = torch.randn(2, 4, 8, 8)
CLASSES = torch.tensor([0, 1])


def squares(outputs: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return outputs.square().mean()


class Net(nn.Module):
    """A body of which something goes wrong, inside a module."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x))


def line_of(marker: str) -> int:
    return next(i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.rstrip().endswith(f"# {marker}"))


class Inverse(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x)
        return torch.erfinv(y)  # erfinv


def branch(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:  # branch
        return x * 2
    return x


def sizes(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1  # count
        return x * self.count


def test_unsupported_operator_names_module_and_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        capture(Net(Inverse()).eval(), (IMAGE, None), squares)
    place = f"module 'body' (Inverse), {Path(__file__).name}:{line_of('erfinv')}"
    assert caught.value.message == f"the operator aten.erfinv.default is not supported: {place}"
    assert caught.value.hint


UNSUPPORTED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "transposed": (lambda x: functional.conv_transpose2d(x, torch.ones(4, 2, 2, 2)), "transposed convolution"),
    "two computed arrays": (lambda x: x @ x, "only a matrix may stand on the right"),
    "batch statistics": (lambda x: functional.batch_norm(x, None, None, training=True), "batch's own statistics"),
    "reflection": (lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"), "reflect"),
    "pad with ones": (lambda x: functional.pad(x, (1, 1), value=1.0), "pads in mode constant with 1.0"),
    "divisor": (lambda x: functional.avg_pool2d(x, 2, divisor_override=3), "divisor_override"),
    "exponent": (lambda x: x**3.5, "exponent 3.5"),
    "dtype": (lambda x: (x.to(torch.float16) * 2).float(), "torch.float16"),
    "seven axes": (lambda x: x.view(1, 2, 2, 2, 2, 4, 4, 2).sum(0), "7 dimensions|8 dimensions"),
    "random": (lambda x: x + torch.randn(4, 8, 8), "not supported"),
    "comparison": (lambda x: torch.where(x > 0, x, -x), "not supported"),
    "alpha dropout": (lambda x: functional.alpha_dropout(x, 0.5, training=True), "training mode|not supported"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    function, message = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError) as caught:
        capture(Net(Of(function)).eval(), (IMAGE, None), squares)
    assert re.search(message, caught.value.message), caught.value.message
    assert "module 'body' (Of)" in caught.value.message
    assert "test_capture.py:" in caught.value.message, "the line of the module's forward"


@pytest.mark.parametrize("function", [branch, sizes])
def test_control_flow_on_data(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        capture(Net(Of(function)).eval(), (IMAGE, None), squares)
    message = str(caught.value)
    assert "fixed graph" in message or "not supported" in message
    if function is branch:
        assert "control flow depends on data" in message
        assert f"{Path(__file__).name}:{line_of('branch')}" in message


def test_changed_buffer() -> None:
    with pytest.raises(UnsupportedError, match=r"writes into 'body\.count'"):
        capture(Net(Counter()).eval(), (IMAGE, None), squares)


def test_changed_input() -> None:
    with pytest.raises(UnsupportedError, match="writes into"):
        capture(Of(lambda x: x.relu_()).eval(), (IMAGE, None), squares)


def test_training_mode() -> None:
    model = preact_resnet().train()
    with pytest.raises(
        InputError, match=r"(?s)BatchNorm 'blocks.0.bn1', 'blocks.0.bn2'.* more is in training mode.*model\.eval\(\)"
    ):
        capture(model, (torch.randn(2, 3, 16, 16), CLASSES), "cross_entropy")
    model.eval().blocks[1].bn2.train()
    with pytest.raises(InputError, match=r"BatchNorm 'blocks\.1\.bn2' is in training mode"):
        capture(model, (torch.randn(2, 3, 16, 16), CLASSES), "cross_entropy")
    with pytest.raises(InputError, match=r"(?s)the model is in training mode.*model\.eval\(\)"):
        capture(nn.Linear(4, 3), (torch.randn(2, 4), CLASSES), "cross_entropy")


def test_wrong_models() -> None:
    example = (torch.randn(2, 4), CLASSES)
    with pytest.raises(InputError, match=r"not a torch\.nn\.Module"):
        capture(lambda x: x, example, "cross_entropy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"(?s)weight is torch.float16.*model\.float\(\)"):
        capture(nn.Linear(4, 3).half().eval(), example, "cross_entropy")
    with pytest.raises(InputError, match=r"weight is torch.float64"):
        capture(nn.Linear(4, 3).double().eval(), example, "cross_entropy")
    with pytest.raises(InputError, match=r"(?s)weight is on meta.*model\.cpu\(\)"):
        capture(nn.Linear(4, 3, device="meta").eval(), example, "cross_entropy")
    broken = nn.Linear(4, 3).eval()
    broken.bias.data[1] = float("nan")
    with pytest.raises(InputError, match="bias holds NaN or infinity"):
        capture(broken, example, "cross_entropy")
    with pytest.raises(InputError, match="lazy module"):
        capture(nn.LazyLinear(3).eval(), example, "cross_entropy")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.randn(2, 4), "no pair"),
        (([1.0, 2.0], CLASSES), "inputs\\[0\\] is a float"),
        ((torch.randn(2, 4).double(), CLASSES), "inputs is torch.float64"),
        ((torch.randn(2, 4), CLASSES.to(torch.uint8)), "targets is torch.uint8"),
        ((torch.randn(3, 4), CLASSES), "inputs: 3, targets: 2"),
        ((torch.randn(0, 4), CLASSES[:0]), "has shape \\(0, 4\\)"),
        ((torch.tensor(1.0), CLASSES), "has shape \\(\\)"),
        ((torch.randn(2, 5), CLASSES), "fails on the example \\(inputs \\(2, 5\\)\\)"),
    ],
)
def test_wrong_examples(example: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        capture(nn.Linear(4, 3).eval(), example, "cross_entropy")  # type: ignore[arg-type]
    assert caught.value.hint


def test_wrong_losses() -> None:
    example = (torch.randn(2, 4), CLASSES)
    model = nn.Linear(4, 3).eval()
    with pytest.raises(InputError, match="unknown loss 'crossentropy'"):
        capture(model, example, "crossentropy")
    with pytest.raises(InputError, match="the loss has shape"):
        capture(model, example, lambda o, t: functional.cross_entropy(o, t, reduction="none"))
    with pytest.raises(InputError, match="the loss is a float"):
        capture(model, example, lambda *_: 1.0)
    with pytest.raises(InputError, match="fails on the example"):
        capture(model, example, "mse")
    with pytest.raises(InputError, match="returns 2 tensors"):
        capture(Of(lambda x: (x, x)).eval(), example, "cross_entropy")
    with pytest.raises(UnsupportedError, match="weighs the classes"):
        capture(model, example, nn.CrossEntropyLoss(torch.ones(3)))
