"""A network small enough for any board, trained until its loss has fallen."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np

from edgekit.board import Board
from edgekit.errors import DeviceError, EdgekitError, InputError
from edgekit.sessions import Device, Session


def train_a_little(device: Device, board: Board | str) -> str:
    """Compile for ``board``, train on ``device``, and leave no session behind; how the loss went.

    Raises:
        InputError: PyTorch is missing.
        DeviceError: the loss does not fall, or the board refuses.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"PyTorch cannot be imported: {error}", "pip install 'torch>=2.9'") from error
    from edgekit.compilation import compile
    from edgekit.training.optimizers import SGD

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    inputs = torch.randn(32, 8)
    targets = torch.arange(32) % 4
    program = compile(model, (inputs[:8], targets[:8]), loss="cross_entropy", board=board, update="full", optimizer=SGD(lr=0.1))
    data = {"inputs": inputs.numpy(), "targets": targets.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        session = device.train(program, data, epochs=20, run_dir=Path(folder) / "doctor")
        try:
            losses = [record.loss for record in session]
        finally:
            _forget(device, session)
    first, last = float(np.mean(losses[:4])), float(np.mean(losses[-4:]))
    if not last < first:
        raise DeviceError(f"the loss of a small network went from {first:.3f} to {last:.3f}", "run `make test`, and report this")
    return f"loss {first:.3f} → {last:.3f}"


def _forget(device: Device, session: Session) -> None:
    if session.id is None:
        return
    with contextlib.suppress(EdgekitError):  # what went wrong before is the news
        device.sessions.remove(session.id)
