"""JAX: one jitted step (XLA's CPU compiler), NHWC. The trained parameters alone are differentiated, and updated in place."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarks.peers.job import Array, Job, Layer, walk
from benchmarks.peers.workers.nhwc import from_nhwc, to_nhwc
from benchmarks.peers.workers.serve import Trainer

Values = dict[str, Any]


def _apply(values: Values, layer: Layer, x: Any, *others: Any) -> Any:
    pads = [(0, 0), (layer.padding,) * 2, (layer.padding,) * 2, (0, 0)]
    match layer.op:
        case "conv":
            made = lax.conv_general_dilated(
                x,
                values[layer.weight],
                (layer.stride, layer.stride),
                pads[1:3],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=layer.groups,
            )
            return made + values[layer.bias]
        case "linear":
            return x @ values[layer.weight] + values[layer.bias]
        case "relu":
            return jax.nn.relu(x)
        case "relu6":
            return jax.nn.relu6(x)
        case "add":
            return jnp.add(x, *others)
        case "max_pool":
            window, strides = (1, layer.kernel, layer.kernel, 1), (1, layer.stride, layer.stride, 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)
        case "mean":
            return x.mean((1, 2))
    raise NotImplementedError(layer.op)


class Peer(Trainer):
    version = jax.__version__

    def __init__(self, job: Job) -> None:
        arrays = to_nhwc(job.parameters())
        self.trained = {name: jnp.asarray(array) for name, array in arrays.items() if name in job.trained}
        self.frozen = {name: jnp.asarray(array) for name, array in arrays.items() if name not in job.trained}
        masks = {name: jnp.asarray(mask) for name, mask in to_nhwc(job.masks()).items()}
        inputs, targets = job.batch()
        self.inputs, self.targets = jnp.asarray(inputs.transpose(0, 2, 3, 1)), jnp.asarray(targets, jnp.int32)

        def loss(trained: Values, frozen: Values, inputs: Any, targets: Any) -> Any:
            values = trained | frozen
            logits = walk(job.layers, inputs, lambda *of: _apply(values, *of))
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], 1).mean()

        def step(trained: Values, frozen: Values, inputs: Any, targets: Any) -> tuple[Values, Any]:
            value, gradients = jax.value_and_grad(loss)(trained, frozen, inputs, targets)
            gradients |= {name: gradients[name] * mask for name, mask in masks.items()}
            return jax.tree.map(lambda w, g: w - job.lr * g, trained, gradients), value

        jitted = jax.jit(step, donate_argnums=0)
        self.train = jitted.lower(self.trained, self.frozen, self.inputs, self.targets).compile()

    def step(self) -> float:
        self.trained, loss = self.train(self.trained, self.frozen, self.inputs, self.targets)
        jax.block_until_ready(self.trained)
        return float(loss)

    def parameters(self) -> dict[str, Array]:
        return from_nhwc({name: np.asarray(v) for name, v in (self.trained | self.frozen).items()})
