"""ONNX Runtime's training of an ONNX graph: artifacts made offline, then a module and an SGD optimizer on the device."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer

from benchmarks.peers.job import INPUT, Array, Job, Layer
from benchmarks.peers.workers.serve import Trainer


def _nodes(layer: Layer) -> list[onnx.NodeProto]:
    inputs, output = list(layer.inputs), layer.output
    sizes = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
    match layer.op:
        case "conv":
            return [helper.make_node("Conv", [*inputs, layer.weight, layer.bias], [output], group=layer.groups, **sizes)]
        case "linear":
            return [helper.make_node("Gemm", [*inputs, layer.weight, layer.bias], [output], transB=1)]
        case "relu":
            return [helper.make_node("Relu", inputs, [output])]
        case "relu6":
            return [helper.make_node("Clip", [*inputs, "zero", "six"], [output])]
        case "add":
            return [helper.make_node("Add", inputs, [output])]
        case "max_pool":
            return [helper.make_node("MaxPool", inputs, [output], **sizes)]
        case "mean":
            pooled = f"{output}_pooled"
            return [helper.make_node("GlobalAveragePool", inputs, [pooled]), helper.make_node("Flatten", [pooled], [output])]
    raise NotImplementedError(layer.op)


def _model(job: Job, arrays: dict[str, Array], shape: tuple[int, ...]) -> onnx.ModelProto:
    bounds = {"zero": np.float32(0), "six": np.float32(6)}
    graph = helper.make_graph(
        [node for layer in job.layers for node in _nodes(layer)],
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(job.layers[-1].output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (arrays | bounds).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


class Peer(Trainer):
    version = onnxruntime.__version__

    def __init__(self, job: Job) -> None:
        arrays = job.parameters()
        inputs, targets = job.batch()
        with tempfile.TemporaryDirectory() as folder:
            artifacts.generate_artifacts(
                _model(job, arrays, inputs.shape),
                requires_grad=[name for name in arrays if name in job.trained],
                frozen_params=[name for name in arrays if name not in job.trained],
                loss=artifacts.LossType.CrossEntropyLoss,
                optimizer=artifacts.OptimType.SGD,
                artifact_directory=folder,
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = job.threads
            options.inter_op_num_threads = 1
            self.state = CheckpointState.load_checkpoint(f"{folder}/checkpoint")
            self.module = Module(f"{folder}/training_model.onnx", self.state, session_options=options)
            self.optimizer = Optimizer(f"{folder}/optimizer_model.onnx", self.module)
        self.optimizer.set_learning_rate(job.lr)
        self.module.train()
        self.batch: list[Any] = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in (inputs, targets)]

    def step(self) -> float:
        loss = self.module(*self.batch)
        self.optimizer.step()
        self.module.lazy_reset_grad()
        return float(loss.numpy())

    def parameters(self) -> dict[str, Array]:
        return {name: parameter.data for name, parameter in self.state.parameters}
