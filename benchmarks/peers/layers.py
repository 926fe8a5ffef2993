"""A PyTorch network with its BatchNorm folded, and the same as a list of layers and arrays that any framework can build."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.peers.job import INPUT, Array, Layer

SKIPPED = (nn.Identity, nn.Dropout, nn.Flatten)  #: nothing in evaluation mode, on what ``mean`` gives
ADDITIONS = (operator.add, operator.iadd, torch.add)


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each BatchNorm folded into the convolution before it; blocks and names stay."""
    made = copy.deepcopy(module).eval()
    modules = dict(made.named_modules())
    for node in fx.symbolic_trace(made).graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d):
            before = node.args[0].target
            convolution = modules[before]
            assert isinstance(convolution, nn.Conv2d)
            made.set_submodule(before, fuse_conv_bn_eval(convolution, norm))
            made.set_submodule(node.target, nn.Identity())
    return made.requires_grad_()


def describe(module: nn.Module) -> tuple[tuple[Layer, ...], dict[str, Array]]:
    """The layers in order of execution, and the parameters by the module's own names.

    Raises:
        NotImplementedError: an operator that the peers' workers do not have.
    """
    traced = fx.symbolic_trace(module)
    modules = dict(traced.named_modules())
    names: dict[fx.Node, str] = {}
    layers: list[Layer] = []
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            names[node] = INPUT
        elif node.op in ("call_module", "call_function"):
            what = modules[node.target] if node.op == "call_module" else node.target
            inputs = tuple(names[n] for n in node.all_input_nodes)
            if isinstance(what, SKIPPED) or what is torch.flatten:
                names[node] = inputs[0]
                continue
            names[node] = node.name
            layers.append(_layer(what, node, inputs))
        elif node.op != "output":
            raise NotImplementedError(f"{node.op} {node.target}")
    readers = [name for layer in layers for name in layer.inputs]
    layers = [replace(layer, in_place=readers.count(layer.inputs[0]) == 1) for layer in layers]
    return tuple(layers), {name: p.detach().numpy() for name, p in module.named_parameters()}


def _layer(what: Any, node: fx.Node, inputs: tuple[str, ...]) -> Layer:
    made = Layer("", node.name, inputs)
    if isinstance(what, nn.Conv2d):
        assert what.groups in (1, what.in_channels, what.out_channels)
        assert what.dilation == (1, 1)
        sizes: dict[str, Any] = {"kernel": _one(what.kernel_size), "stride": _one(what.stride), "padding": _one(what.padding)}
        return replace(made, op="conv", groups=what.groups, **_parameters(node), **sizes)
    if isinstance(what, nn.Linear):
        return replace(made, op="linear", **_parameters(node))
    if isinstance(what, nn.ReLU):
        return replace(made, op="relu")
    if isinstance(what, nn.ReLU6):
        return replace(made, op="relu6")
    if isinstance(what, nn.MaxPool2d):
        return replace(made, op="max_pool", kernel=_one(what.kernel_size), stride=_one(what.stride), padding=_one(what.padding))
    if isinstance(what, nn.AdaptiveAvgPool2d) or what is functional.adaptive_avg_pool2d:
        size = what.output_size if isinstance(what, nn.AdaptiveAvgPool2d) else node.args[1]
        assert size in (1, (1, 1)), size
        return replace(made, op="mean")
    if what in ADDITIONS:
        return replace(made, op="add")
    raise NotImplementedError(f"{node.target}: {what}")


def _parameters(node: fx.Node) -> dict[str, Any]:
    return {"weight": f"{node.target}.weight", "bias": f"{node.target}.bias"}


def _one(sizes: Any) -> int:
    height, width = sizes if isinstance(sizes, tuple) else (sizes, sizes)
    assert height == width
    return int(height)
