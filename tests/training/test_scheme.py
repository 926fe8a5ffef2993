"""Words, presets, globs and files to parameter names and fractions; and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.frontends.torch import capture
from edgekit.graph.model import Model
from edgekit.training.blocks import structure_of
from edgekit.training.presets import PRESETS
from edgekit.training.scheme import choose
from tests.zoo import mcunet, mobilenet_v2, mobilenet_v3, preact_resnet, resnet18, resnet50


def captured(model: nn.Module, *shape: int) -> Model:
    x = torch.randn(2, *(shape or (3, 32, 32)))
    return capture(model.eval(), (x, torch.tensor([0, 1])), "cross_entropy")


@pytest.fixture(scope="module")
def mobilenet() -> Model:
    return captured(mobilenet_v2(0.35, 10))


@pytest.fixture(scope="module")
def plain() -> Model:
    """Convolutions, with and without bias and norm, and two linear layers."""
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    )
    return captured(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))


def modules(names: object) -> set[str]:
    return {name.rsplit(".", 1)[0] for name in names}  # type: ignore[attr-defined]


def test_last_is_blocks_and_classifier_without_the_final_convolution(mobilenet: Model) -> None:
    """The benchmark's scheme: the last six inverted residuals and the classifier; the last 1×1 convolution stays frozen."""
    chosen = choose(mobilenet, "last:6")
    tops = {".".join(name.split(".")[:2]) for name in chosen.fractions}
    assert tops == {*(f"features.{i}" for i in range(12, 18)), "classifier.1"}
    assert set(chosen.fractions.values()) == {1.0}
    norms = [name for name in chosen.fractions if name in structure_of(mobilenet).norm_scales]
    assert norms == []
    assert "features.17.conv.3.bias" in chosen.fractions
    assert any("scales (52 of them) stay frozen" in note for note in chosen.notes)


def test_full_is_everything_but_the_norms_scales(mobilenet: Model) -> None:
    chosen = choose(mobilenet, "full")
    frozen = set(mobilenet.parameters) - set(chosen.fractions)
    assert frozen == structure_of(mobilenet).norm_scales
    assert len(frozen) == 52
    assert list(chosen.fractions) == [name for name in mobilenet.parameters if name not in frozen]


def test_head_and_bias(mobilenet: Model) -> None:
    assert list(choose(mobilenet, "head").fractions) == ["classifier.1.weight", "classifier.1.bias"]
    assert list(choose(mobilenet, "bias:3").fractions) == ["features.17.conv.3.bias", "features.18.1.bias", "classifier.1.bias"]


def test_a_plain_network_has_a_block_a_layer(plain: Model) -> None:
    assert list(choose(plain, "last:1").fractions) == ["7.weight", "7.bias", "9.weight", "9.bias"]
    assert list(choose(plain, "last:2").fractions) == ["3.weight", "7.weight", "7.bias", "9.weight", "9.bias"]
    assert list(choose(plain, "last:3").fractions) == [
        "0.weight",
        "0.bias",
        "1.bias",
        "3.weight",
        "7.weight",
        "7.bias",
        "9.weight",
        "9.bias",
    ]
    assert list(choose(plain, "bias:3").fractions) == ["0.bias", "1.bias", "7.bias", "9.bias"]


@pytest.mark.parametrize(
    ("model", "size", "count", "last", "head"),
    [
        (mobilenet_v3(10), 32, 5, "features.5", "classifier.3"),
        (resnet18(10), 32, 8, "layer4.1", "fc"),
        (resnet50(10), 32, 16, "layer4.2", "fc"),
        (preact_resnet(10), 16, 3, "blocks.2", "fc"),
        (mcunet(0.25, 10), 64, 15, "features.15", "classifier.1"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else str(v),
)
def test_blocks_are_the_repeated_modules(model: nn.Module, size: int, count: int, last: str, head: str) -> None:
    structure = structure_of(captured(model, 3, size, size))
    assert (len(structure.blocks), structure.blocks[-1].path) == (count, last)
    assert [layer.module for layer in structure.head] == [head]


def test_outermost_of_nested_blocks() -> None:
    class Inner(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.Linear(4, 4))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Inner(), Inner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    model = captured(nn.Sequential(Outer(), Outer(), nn.Linear(4, 3)), 4)
    assert [b.path for b in structure_of(model).blocks] == ["0", "1"]


def test_several_heads() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.relu(self.body(x))
            return self.one(y), self.two(y)

    def loss(outputs: tuple[torch.Tensor, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs[0] + outputs[1], targets)

    model = capture(Two().eval(), (torch.randn(2, 4), torch.tensor([0, 1])), loss)
    assert modules(choose(model, "head").fractions) == {"one", "two"}


def test_globs(mobilenet: Model) -> None:
    chosen = choose(mobilenet, {"features.17.*": 0.25, "features.17.conv.2.weight": 1, "classifier.1.bias": 0.5})
    assert chosen.fractions["features.17.conv.0.0.weight"] == 0.25
    assert chosen.fractions["features.17.conv.2.weight"] == 1.0, "the last glob that matches counts"
    assert chosen.fractions["features.17.conv.0.1.weight"] == 1.0, "a vector has no input channels: whole"
    assert chosen.fractions["classifier.1.bias"] == 1.0
    assert any("updated whole" in note for note in chosen.notes)
    assert modules(chosen.fractions) <= {
        "classifier.1",
        *(f"features.17.conv.{p}" for p in ("0.0", "0.1", "1.0", "1.1", "2", "3")),
    }


def test_fraction_axis(mobilenet: Model) -> None:
    axes = {name: p.in_axis for name, p in mobilenet.parameters.items()}
    assert axes["features.17.conv.0.0.weight"] == 2
    assert axes["features.17.conv.1.0.weight"] == 3, "a depthwise convolution's channels are the last axis of [kh, kw, 1, C]"
    assert axes["classifier.1.weight"] == 0
    assert axes["features.17.conv.0.1.weight"] is None


def test_presets(mobilenet: Model) -> None:
    chosen = choose(mobilenet, "mobilenetv2-49kb").fractions
    weights = {name: f for name, f in chosen.items() if not name.endswith("bias")}
    assert weights == {
        "features.13.conv.0.0.weight": 1.0,
        "features.14.conv.0.0.weight": 1.0,
        "features.14.conv.2.weight": 0.25,
        "features.15.conv.0.0.weight": 0.125,
        "features.16.conv.0.0.weight": 0.125,
        "features.17.conv.0.0.weight": 0.125,
        "features.17.conv.1.0.weight": 0.125,
        "classifier.1.weight": 1.0,
    }
    assert sum(name.endswith("bias") for name in chosen) == 16 + 1
    first = {name: f for name, f in choose(mobilenet, "mobilenetv2-99kb").fractions.items() if ".conv.0.0.weight" in name}
    assert list(first.values()) == [1.0, 1.0, 1.0, 1.0, 1.0, 0.125, 0.5, 1.0]
    seven = choose(mobilenet, "pockengine-mobilenetv2").fractions
    assert {n for n in seven if n.endswith("0.0.weight")} == {f"features.{i}.conv.0.0.weight" for i in range(11, 18)}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_refuse_other_networks(plain: Model, name: str) -> None:
    with pytest.raises(InputError, match=f"the preset '{name}' is for a network of"):
        choose(plain, name)


def test_pockengine_resnet50() -> None:
    chosen = choose(captured(resnet50(10)), "pockengine-resnet50").fractions
    blocks = [*(f"layer3.{i}" for i in range(1, 6)), *(f"layer4.{i}" for i in range(3))]
    assert {n for n in chosen if n.endswith("conv1.weight")} == {f"{block}.conv1.weight" for block in blocks}


def test_file(mobilenet: Model, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "bias:2"\n[update]\n"features.1[67].conv.0.0.weight" = 0.5\n')
    chosen = choose(mobilenet, str(path))
    assert chosen.fractions == {
        "features.16.conv.0.0.weight": 0.5,
        "features.17.conv.0.0.weight": 0.5,
        "features.18.1.bias": 1.0,
        "classifier.1.bias": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[update", "is no TOML"),
        ("", "neither"),
        ("lr = 1", "unknown key 'lr'"),
        ('[update]\n"nothing.*" = 1.0', "no parameter matches 'nothing.*'"),
        ('[update]\n"*" = "all"', "the fraction of '\\*' is 'all'"),
    ],
)
def test_bad_files(mobilenet: Model, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        choose(mobilenet, str(path))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ("lst:6", "unknown update 'lst:6'\n.*did you mean 'last:N'"),
        ("last:18", "the model has 17 blocks"),
        ("last:0", "at least 1"),
        ("last:x", "at least 1"),
        ("last:", "unknown update"),
        ("bias:54", "the model has 53 layers with a bias"),
        ("none.toml", "cannot read the update scheme none.toml"),
        ({}, "trains nothing"),
        ({"clasifier.*": 1.0}, "no parameter matches 'clasifier.*'\n.*classifier.1"),
        ({"*": 0.0}, "more than 0 and at most 1"),
        ({"*": 1.5}, "more than 0 and at most 1"),
        ({"*": float("nan")}, "more than 0 and at most 1"),
        ({"*": True}, "more than 0 and at most 1"),
        (7, "the update is a int"),
    ],
)
def test_bad_updates(mobilenet: Model, update: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        choose(mobilenet, update)  # type: ignore[arg-type]
    caught.match(message)


def test_parameters_that_the_loss_does_not_depend_on() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = captured(Spare(), 4)
    assert model.unused == ("spare.weight", "spare.bias")
    with pytest.raises(InputError, match="the loss does not depend on"):
        choose(model, {"spare.*": 1.0})
