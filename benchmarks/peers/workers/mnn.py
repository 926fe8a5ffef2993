"""MNN: expressions in its own blocked layout (NC4HW4), differentiated and updated by its SGD.

Without ``lazy_eval`` the optimizer's step does nothing and says nothing. Means, matrix products and pads pass no gradient;
average pools, 1×1 convolutions and concatenations do.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import MNN
import numpy as np

from benchmarks.peers.job import Array, Job, Layer, walk
from benchmarks.peers.workers.serve import Trainer

F = MNN.expr


class Net(MNN.nn.Module):
    """The layers; the trained parameters alone are the module's own."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.layers = job.layers
        self.values: dict[str, Any] = {}
        for number, (name, array) in enumerate(job.parameters().items()):
            array = array[:, :, None, None] if array.ndim == 2 else array
            value = F.const(np.ascontiguousarray(array), list(array.shape), F.NCHW)
            self.values[name] = value
            if name in job.trained:
                value.fix_as_trainable()
                setattr(self, f"p{number}", value)

    def forward(self, x: Any) -> Any:
        return walk(self.layers, F.convert(x, F.NC4HW4), self._apply)

    def _apply(self, layer: Layer, x: Any, *others: Any) -> Any:
        match layer.op:
            case "conv":
                weight, bias = self.values[layer.weight], self.values[layer.bias]
                stride, padding = [layer.stride] * 2, [layer.padding] * 2
                return F.conv2d(x, weight, bias, stride, padding, [1, 1], layer.groups, F.CAFFE)  # VALID ignores padding
            case "linear":
                made = F.conv2d(x, self.values[layer.weight], self.values[layer.bias])
                return F.reshape(F.convert(made, F.NCHW), made.shape[:2])
            case "relu":
                return F.relu(x)
            case "relu6":
                return F.relu6(x)
            case "add":
                return F.add(x, *others)
            case "max_pool":
                return F.max_pool(_bordered(x, layer.padding), [layer.kernel] * 2, [layer.stride] * 2, F.VALID)
            case "mean":
                return F.avg_pool(x, x.shape[2:], [1, 1])
        raise NotImplementedError(layer.op)


class Peer(Trainer):
    version = importlib.metadata.version("MNN")

    def __init__(self, job: Job) -> None:
        F.lazy_eval(True)
        F.set_thread_number(job.threads)
        self.given = job.parameters
        inputs, targets = job.batch()
        self.inputs = F.const(inputs, list(inputs.shape), F.NCHW)
        self.targets = F.const(targets.astype(np.int32), list(targets.shape), F.NCHW, F.int)
        self.net = Net(job)
        self.net.train(True)
        self.classes = len(self.net.values[job.layers[-1].bias].read())
        self.optimizer = MNN.optim.SGD(self.net, job.lr, momentum=0.0)

    def step(self) -> float:
        logits = self.net.forward(self.inputs)
        targets = F.one_hot(self.targets, self.classes)
        loss = MNN.nn.loss.cross_entropy(F.softmax(logits), targets)
        value = float(loss.read())
        if not self.optimizer.step(loss):
            raise RuntimeError("MNN's optimizer did nothing")
        return value

    def parameters(self) -> dict[str, Array]:
        return {name: np.array(self.net.values[name].read()).reshape(a.shape) for name, a in self.given().items()}


def _bordered(x: Any, width: int) -> Any:
    """Zeros above and left of an image, which is enough for a stride of 2, and right behind a ReLU.

    A pad passes no gradient, and pooling with padding of its own rounds the result's size up.
    """
    for axis in (2, 3):
        shape = list(x.shape)
        shape[axis] = width
        zeros = F.const(np.zeros(shape, np.float32), shape, F.NCHW)
        x = F.concat([F.convert(zeros, F.NC4HW4), x], axis)
    return x
