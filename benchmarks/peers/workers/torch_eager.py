"""PyTorch, eager, channels-last: what its users run on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.job import Array, Job, Layer, walk
from benchmarks.peers.workers.serve import Trainer


class Net:
    """The layers, with the trained parameters alone asking for gradients."""

    def __init__(self, job: Job, layout: torch.memory_format = torch.channels_last) -> None:
        self.layers = job.layers
        self.values = {
            name: nn.Parameter(_in(layout, torch.from_numpy(array)), requires_grad=name in job.trained)
            for name, array in job.parameters().items()
        }

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return walk(self.layers, x, self._apply)

    def _apply(self, layer: Layer, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        match layer.op:
            case "conv":
                weight, bias = self.values[layer.weight], self.values[layer.bias]
                return functional.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
            case "linear":
                return functional.linear(x, self.values[layer.weight], self.values[layer.bias])
            case "relu":
                return functional.relu(x, layer.in_place)
            case "relu6":
                return functional.relu6(x, layer.in_place)
            case "add":
                return x.add_(*others) if layer.in_place else x.add(*others)
            case "max_pool":
                return functional.max_pool2d(x, layer.kernel, layer.stride, layer.padding)
            case "mean":
                return x.mean((2, 3))
        raise NotImplementedError(layer.op)


class Peer(Trainer):
    version: str = torch.__version__
    layout = torch.channels_last  #: of images and filters

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.net = Net(job, self.layout)
        inputs, targets = job.batch()
        self.inputs, self.targets = _in(self.layout, torch.from_numpy(inputs)), torch.from_numpy(targets)
        self.optimizer = torch.optim.SGD([p for p in self.net.values.values() if p.requires_grad], lr=job.lr, fused=True)
        self.loss: Callable[[], torch.Tensor] = self._loss
        #: (a parameter, what is frozen of its gradient), where only a part is trained
        self.frozen = [(self.net.values[name], part.axis, part.count) for name, part in job.parts.items()]

    def _loss(self) -> torch.Tensor:
        return functional.cross_entropy(self.net(self.inputs), self.targets)

    def step(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, axis, count in self.frozen:
            assert parameter.grad is not None
            parameter.grad.narrow(axis, count, parameter.shape[axis] - count).zero_()
        self.optimizer.step()
        return loss.item()

    def parameters(self) -> dict[str, Array]:
        return {name: p.detach().numpy() for name, p in self.net.values.items()}


def _in(layout: torch.memory_format, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=layout) if tensor.dim() == 4 else tensor
