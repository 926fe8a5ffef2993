"""TensorFlow: one graph (tf.function) of forward, gradients and update, NHWC, by oneDNN and Eigen."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.peers.job import Array, Job, Layer, walk
from benchmarks.peers.workers.nhwc import from_nhwc, to_nhwc
from benchmarks.peers.workers.serve import Trainer


class Net:
    """The layers on tensors; ``values`` are variables or constants by name."""

    def __init__(self, layers: tuple[Layer, ...], values: dict[str, tf.Variable | tf.Tensor]) -> None:
        self.layers = layers
        self.values = values

    def loss(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        logits = walk(self.layers, inputs, self._apply)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))

    def _apply(self, layer: Layer, x: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
        match layer.op:
            case "conv":
                return tf.nn.bias_add(self._convolve(layer, x), self.values[layer.bias])
            case "linear":
                return tf.linalg.matmul(x, self.values[layer.weight]) + self.values[layer.bias]
            case "relu":
                return tf.nn.relu(x)
            case "relu6":
                return tf.nn.relu6(x)
            case "add":
                return tf.add(x, *others)
            case "max_pool":
                padded = tf.pad(x, _borders(layer), constant_values=x.dtype.min)
                return tf.nn.max_pool2d(padded, layer.kernel, layer.stride, "VALID")
            case "mean":
                return tf.reduce_mean(x, (1, 2))
        raise NotImplementedError(layer.op)

    def _convolve(self, layer: Layer, x: tf.Tensor) -> tf.Tensor:
        weight = self.values[layer.weight]
        if layer.groups == 1:
            padding = _borders(layer) if layer.padding else "VALID"
            return tf.nn.conv2d(x, weight, layer.stride, padding)
        if layer.stride == 1:  # SAME pads as much on every side then
            return tf.nn.depthwise_conv2d(x, weight, (1, 1, 1, 1), "SAME")
        return tf.nn.depthwise_conv2d(tf.pad(x, _borders(layer)), weight, (1, layer.stride, layer.stride, 1), "VALID")


class Peer(Trainer):
    version = tf.__version__

    def __init__(self, job: Job) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        tf.config.threading.set_inter_op_parallelism_threads(job.threads)
        inputs, targets = job.batch()
        self.inputs, self.targets = tf.constant(inputs.transpose(0, 2, 3, 1)), tf.constant(targets)
        self.depthwise = depthwise(job.layers)
        arrays = to_nhwc(job.parameters(), self.depthwise)
        self.values = {name: tf.Variable(array, trainable=name in job.trained) for name, array in arrays.items()}
        net = Net(job.layers, self.values)
        trained = [v for v in self.values.values() if v.trainable]
        masks = constant_masks(job, self.depthwise)

        @tf.function(jit_compile=False, autograph=False)
        def step(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:  # watches what is trainable
                loss = net.loss(inputs, targets)
            names = [name for name, v in self.values.items() if v.trainable]
            for name, variable, gradient in zip(names, trained, tape.gradient(loss, trained), strict=True):
                gradient = gradient * masks[name] if name in masks else gradient
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=job.lr, delta=gradient)
            return loss

        self.train = step.get_concrete_function(self.inputs, self.targets)

    def step(self) -> float:
        return float(self.train(self.inputs, self.targets).numpy())

    def parameters(self) -> dict[str, Array]:
        return from_nhwc({name: np.asarray(v) for name, v in self.values.items()}, self.depthwise)


def constant_masks(job: Job, depthwise: set[str]) -> dict[str, tf.Tensor]:
    """What gradients are multiplied with where only a part of a parameter is trained."""
    return {name: tf.constant(mask) for name, mask in to_nhwc(job.masks(), depthwise).items()}


def depthwise(layers: tuple[Layer, ...]) -> set[str]:
    """The filters that TensorFlow wants with the channels before their one result."""
    return {layer.weight for layer in layers if layer.groups > 1}


def _borders(layer: Layer) -> list[list[int]]:
    return [[0, 0], [layer.padding] * 2, [layer.padding] * 2, [0, 0]]
