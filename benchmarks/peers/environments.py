"""The peers, and a virtual environment for each: their pins of NumPy and protobuf exclude each other."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from edgekit.files import cache_root, locked


@dataclass(frozen=True)
class Peer:
    """A framework to compare.

    Attributes:
        title: for tables.
        worker: module and class of its Trainer.
        requirements: pip's, with the versions that the figures are of; none: it runs in this process's own environment.
        ours: it is edgekit, and no peer of its own.
        needs_frozen: it has nothing to add where everything is trained.
        parts: its worker can train a part of a parameter.
    """

    title: str
    worker: str
    requirements: tuple[str, ...] = ()
    ours: bool = False
    needs_frozen: bool = False
    parts: bool = True


_WORKERS = "benchmarks.peers.workers"
_ONNX_RUNTIME = ("onnxruntime-training-cpu==1.19.2", "onnx==1.16.2", "numpy<2.3", "torch==2.13.0")  #: it imports torch

#: by the name that ``--peers`` takes. PyTorch is edgekit's own frontend, so it is in this environment (constraints.txt pins it).
PEERS = {
    "edgekit": Peer("edgekit", f"{_WORKERS}.edgekit_runner:Peer", ours=True),
    "edgekit-cached": Peer("edgekit cached", f"{_WORKERS}.edgekit_runner:Cached", ours=True, needs_frozen=True),
    "torch": Peer("PyTorch", f"{_WORKERS}.torch_eager:Peer"),
    "torch-compile": Peer("torch.compile", f"{_WORKERS}.torch_compiled:Peer"),
    "tensorflow": Peer("TensorFlow", f"{_WORKERS}.tensorflow_graph:Peer", ("tensorflow-cpu==2.21.0",)),
    "tflite": Peer("TFLite", f"{_WORKERS}.tflite:Peer", ("tensorflow-cpu==2.17.1",)),  # later ones do not convert training
    "onnxruntime": Peer("ONNX Runtime", f"{_WORKERS}.onnxruntime_training:Peer", _ONNX_RUNTIME, parts=False),
    "mnn": Peer("MNN", f"{_WORKERS}.mnn:Peer", ("MNN==3.6.1", "numpy"), parts=False),
    "jax": Peer("JAX", f"{_WORKERS}.jax_jit:Peer", ("jax==0.10.2", "jaxlib==0.10.2")),
}


class Unavailable(Exception):
    """A peer cannot be installed or run here; says why, in one line."""


def interpreter(name: str) -> Path:
    """The Python of a peer's environment, which is made if it is not there yet.

    Raises:
        Unavailable: pip cannot install it.
    """
    peer = PEERS[name]
    if not peer.requirements:
        return Path(sys.executable)
    root = cache_root() / "peers"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    python, made = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join((sys.version, *peer.requirements))
    with locked(root / f"{name}.lock"):
        if not (made.exists() and made.read_text() == wanted):
            venv.create(folder, with_pip=True, clear=True)
            _pip(python, peer.requirements)
            made.write_text(wanted)
    return python


def _pip(python: Path, requirements: tuple[str, ...]) -> None:
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise Unavailable(errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}")
