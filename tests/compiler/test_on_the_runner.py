"""Compiled training steps on the C executor and CPU kernels, against torch autograd and torch.optim.SGD."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgekit.backends.cpu.capability import CPU
from edgekit.firmware.build import build

from edgekit.compiler import compile_program
from edgekit.graph.entry import Role
from edgekit.graph.model import Model, Trainable
from edgekit.program import Program
from edgekit.program.arrays import decode
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import Net, everything, gated, inverted_residuals, residuals, torch_gradients, train_only

NETS = {"inverted residuals": inverted_residuals, "residuals": residuals, "gated": gated}
SCHEMES: dict[str, Callable[[Model], list[Trainable]]] = {
    "full": everything,
    "biases": lambda m: train_only(m, {v.name: None for v in m.graph.state if v.name.endswith("bias")}),
    "sparse": lambda m: train_only(m, {"conv2.weight": 2, "conv2.bias": None, "conv4.weight": 3}),
}


def run_once(program: Program, inputs: list[np.ndarray], folder: Path) -> tuple[float, bytes]:
    """The loss of one train_step, and the state after it."""
    program.save(folder / "p.ekp")
    (folder / "in.bin").write_bytes(b"".join(a.tobytes() for a in inputs))
    runner = build("run_once", f"{os.uname().machine}-linux")
    command = [runner, folder / "p.ekp", "train_step", folder / "in.bin", folder / "out.bin", "--threads", "2"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    out = (folder / "out.bin").read_bytes()
    return float(np.frombuffer(out[:4], np.float32)[0]), out[4:]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETS)
def test_a_step_is_torchs(name: str, scheme: str, tmp_path: Path) -> None:
    make: Callable[[], tuple[Net, Model]] = NETS[name]
    net, model = make()
    trained = SCHEMES[scheme](model)
    feeds = {v: a.astype(np.float32) if v is net.x else a for v, a in net.feeds(model).items()}
    loss, gradients = torch_gradients(model.graph, model.loss, [t.value for t in trained], feeds)
    program = compile_program(make_plan(model, trained, SGD(0.1)), capability=CPU, batch=2)
    ports = [p for p in program.entries["train_step"].ports if p.role in (Role.INPUT, Role.TARGET)]
    by_role = {Role.INPUT: feeds[net.x], Role.TARGET: feeds[model.targets]}
    found, state = run_once(program, [by_role[p.role] for p in ports], tmp_path)
    assert found == pytest.approx(loss, rel=1e-5)
    for t, g in zip(trained, gradients, strict=True):
        assert g is not None
        if t.channels is not None and t.in_axis is not None:
            g[(slice(None),) * t.in_axis + (slice(t.channels, None),)] = 0
        place = program.tensor(t.value.name)
        after = decode(state[place.offset : place.offset + place.type.nbytes], place.type)
        np.testing.assert_allclose(after, model.graph.state[t.value] - 0.1 * g, rtol=1e-4, atol=2e-6, err_msg=t.value.name)
