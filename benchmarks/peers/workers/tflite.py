"""TensorFlow Lite with training signatures: forward in its own operators (XNNPACK), most gradients in TensorFlow's ("Flex").

Frozen parameters are constants of the model's file, as its users would have it; trained ones are resource variables.
"""

from __future__ import annotations

import tempfile

import tensorflow as tf

from benchmarks.peers.job import Array, Job
from benchmarks.peers.workers.nhwc import from_nhwc, to_nhwc
from benchmarks.peers.workers.serve import Trainer
from benchmarks.peers.workers.tensorflow_graph import Net, constant_masks, depthwise


class Peer(Trainer):
    version = tf.__version__

    def __init__(self, job: Job) -> None:
        inputs, targets = job.batch()
        self.batch = {"inputs": inputs.transpose(0, 2, 3, 1).copy(), "targets": targets.astype("int32")}
        self.depthwise = depthwise(job.layers)
        self.names = list(job.parameters())
        self.interpreter = tf.lite.Interpreter(model_content=_converted(job, self.batch), num_threads=job.threads)
        self.train = self.interpreter.get_signature_runner("train")

    def step(self) -> float:
        return float(self.train(**self.batch)["loss"])

    def parameters(self) -> dict[str, Array]:
        arrays = self.interpreter.get_signature_runner("read")()
        return from_nhwc({name: arrays[f"p{i}"] for i, name in enumerate(self.names)}, self.depthwise)


def _converted(job: Job, batch: dict[str, Array]) -> bytes:
    module = tf.Module()
    arrays = to_nhwc(job.parameters(), depthwise(job.layers))
    values = {name: tf.Variable(a) if name in job.trained else tf.constant(a) for name, a in arrays.items()}
    names = [name for name in arrays if name in job.trained]
    trained = [values[name] for name in names]
    masks = constant_masks(job, depthwise(job.layers))
    module.variables_ = trained  # a saved model keeps what its module holds
    net = Net(job.layers, values)

    @tf.function(input_signature=[tf.TensorSpec(a.shape, a.dtype, name) for name, a in batch.items()], autograph=False)
    def train(inputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            loss = net.loss(inputs, targets)
        for name, variable, gradient in zip(names, trained, tape.gradient(loss, trained), strict=True):
            variable.assign_sub(job.lr * (gradient * masks[name] if name in masks else gradient))
        return {"loss": loss}

    @tf.function(input_signature=[], autograph=False)
    def read() -> dict[str, tf.Tensor]:
        return {f"p{i}": tf.identity(value) for i, value in enumerate(values.values())}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"train": train, "read": read})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter.experimental_enable_resource_variables = True
        made: bytes = converter.convert()
    return made
