"""The benchmark beside other frameworks: its checks find whoever does other work, with real workers."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from benchmarks.peers import environments, measure, networks, report
from benchmarks.peers.environments import PEERS, Peer, Unavailable, interpreter
from benchmarks.peers.job import INPUT, Job, Layer, walk
from benchmarks.peers.layers import describe, folded
from benchmarks.peers.measure import Effort, Figures, Result, Turn
from benchmarks.peers.networks import Work, make_network
from benchmarks.peers.process import Worker, WorkerError
from benchmarks.peers.targets import verdicts
from benchmarks.peers.workers.torch_eager import Net
from examples.models import MobileNetV2
from tests.zoo import ZOO, lively

CHEATS = ("Idle", "Thorough", "Hasty", "Tired", "Broken")


def tiny() -> nn.Module:
    return MobileNetV2(1.0, 10, [(1, 16, 1, 1, 3), (6, 32, 1, 2, 3), (6, 32, 2, 2, 3)], 16, 16)


@pytest.fixture(scope="module", autouse=True)
def patched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "tiny", tiny)
        for name in (*CHEATS, "Greedy"):
            patch.setitem(PEERS, name, Peer(name, f"tests.peers.cheats:{name}"))
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One piece of work by edgekit, PyTorch and the cheats."""
    python = Path(sys.executable)
    peers = dict.fromkeys(("edgekit", "edgekit-cached", "torch", *CHEATS), python)
    work, effort = Work("tiny", 32, 4, "last:1", 1), Effort(rounds=2, turn_seconds=0.0, patience_seconds=0.0)
    return measure.measure(work, peers, effort, tmp_path_factory.mktemp("logs"), lambda _: None)


@pytest.mark.slow
def test_edgekit_and_pytorch_do_the_same_work(result: Result) -> None:
    assert set(result.figures) == {"edgekit", "edgekit-cached", "torch"}
    ours, theirs = result.figures["edgekit"], result.figures["torch"]
    assert len(ours.losses) == len(theirs.losses) == 1 + 2 + 2 * 2, "the first step, round 0, two rounds"
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-4)
    assert len(ours.step_ns) in (2, 2 * 2), "a turn that other work disturbed does not count, unless both were"
    assert ours.losses[-1] < ours.losses[0]
    assert 0 < ours.process_bytes < theirs.process_bytes
    assert 0 < result.trained < result.parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cheat", "reason"),
    [
        ("Idle", "was to be trained and did not move"),
        ("Thorough", "is frozen and moved"),
        ("Hasty", "times the others'"),
        ("Tired", "the others' is"),
        ("Broken", "ValueError: no such operator"),
    ],
)
def test_who_does_other_work_is_left_out(result: Result, cheat: str, reason: str) -> None:
    assert reason in result.failed[cheat]


@pytest.mark.slow
def test_parts_of_parameters(tmp_path: Path) -> None:
    """Input channels of a pointwise and of a linear weight, channels of a depthwise one: edgekit computes slices, PyTorch's user
    masks the whole gradient; losses and movements are the same, and what is beyond the slices stays to the bit."""
    table = ('"features.3.conv.0.0.weight" = 0.5', '"features.3.conv.1.0.weight" = 0.3', '"classifier.1.*" = 0.5')
    (tmp_path / "scheme.toml").write_text("\n".join(('base = "bias:4"', "[update]", *table)))
    work, effort = Work("tiny", 32, 4, str(tmp_path / "scheme.toml"), 1), Effort(rounds=1, turn_seconds=0.0, patience_seconds=0.0)
    names = ("edgekit", "torch", "Greedy")
    found = measure.measure(work, dict.fromkeys(names, Path(sys.executable)), effort, tmp_path, lambda _: None)
    assert set(found.figures) == {"edgekit", "torch"}, found.failed
    np.testing.assert_allclose(found.figures["edgekit"].losses, found.figures["torch"].losses, rtol=1e-4)
    assert "moved beyond the part of it that is trained" in found.failed["Greedy"]
    job = measure.make_job(work, tmp_path)
    given = job.parameters()
    sizes = sorted((job.parts[name].of(given[name]).shape, given[name].shape) for name in job.parts)
    assert len(sizes) == 3
    assert all(part != whole for part, whole in sizes)
    assert Job.load(tmp_path).parts == job.parts


def test_published_schemes_are_measured_with_their_networks() -> None:
    for update, network in networks.SCHEMES.items():
        assert networks.applies(update, network)
        assert not networks.applies(update, "resnet18")
    assert networks.applies("full", "resnet18")
    whole = [name for name, peer in PEERS.items() if measure._applies(peer, Work("mcunet", 128, 8, "mcunet-49kb", 2))]
    assert "mnn" not in whole
    assert {"edgekit", "torch", "tensorflow"} <= set(whole)


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    job = measure.make_job(Work("tiny", 32, 4, "full", 1), tmp_path)
    worker = Worker(Path(sys.executable), "tests.peers.cheats:Slow", job.folder, tmp_path / "log")
    assert worker.ready(60) == torch.__version__
    with pytest.raises(WorkerError, match="no answer within 0 s"):
        worker.ask({"do": "run", "steps": 1}, 0.2)
    with pytest.raises(WorkerError, match="ended with -9"):
        worker.ask({"do": "watch"}, 10)
    worker.close()


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50", "mcunet"])
def test_layers_compute_what_the_module_does(name: str, tmp_path: Path) -> None:
    make, size = ZOO[name]
    module = lively(make())
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    layers, parameters = describe(folded(module))
    assert not any("bn" in parameter for parameter in parameters), "the BatchNorms are folded"
    Job(tmp_path, layers, frozenset(), 1e-3, 1).save(parameters, x.numpy(), np.zeros(2, np.int64))
    with torch.no_grad():
        torch.testing.assert_close(Net(Job.load(tmp_path))(x), module(x), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_network_has_activations_of_a_trained_one() -> None:
    x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = make_network("resnet50", x)
    seen: list[torch.Tensor] = []
    network.get_submodule("layer4.2.conv3").register_forward_hook(
        lambda _module, _inputs, result: seen.append(result.detach().clone())
    )
    network(x)
    assert seen[0].mean(0).mean().abs() < 0.05, "BatchNorm's statistics are those of the inputs: mean 0"
    assert 0.9 < seen[0].std() < 1.1, "and standard deviation 1, in the last block too"


def test_walk_lets_go_of_what_nobody_reads() -> None:
    class Value:
        pass

    alive: list[int] = []
    made: list[weakref.ref[Value]] = []

    def apply(*given: Layer | Value) -> Value:
        del given
        gc.collect()
        alive.append(sum(r() is not None for r in made))
        result = Value()
        made.append(weakref.ref(result))
        return result

    chain = [("a", INPUT), ("b", "a"), ("c", "b"), ("d", "c")]
    walk([*(Layer("relu", out, (of,)) for out, of in chain), Layer("add", "e", ("d", "b"))], Value(), apply)
    assert alive == [0, 1, 1, 2, 2], "before each layer: its input, and b until the last one has read it"


@pytest.mark.slow
def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(environments.PEERS, "none", Peer("None", "none:Peer", ("edgekit-has-no-such-peer==1",)))
    with pytest.raises(Unavailable, match="edgekit-has-no-such-peer==1"):
        interpreter("none")
    assert not (tmp_path / "peers" / "none" / "installed.txt").exists(), "it is tried again"


def figures(ms: float, mib: int = 1) -> Figures:
    return Figures("1", [1.0, 0.5], [Turn([int(ms * 1e6)] * 3, 0.0)], process_bytes=mib << 20)


def test_disturbed_turns_do_not_count() -> None:
    found = Figures("1", turns=[Turn([10, 12], 0.9), Turn([4, 5], 0.0), Turn([6, 7], 0.1)])
    assert (found.disturbed, found.step_ns) == (1, [4, 5, 6, 7])
    alone = Figures("1", turns=[Turn([10, 12], 0.9)])
    assert (alone.disturbed, alone.step_ns) == (1, [10, 12]), "better than nothing"


def results() -> list[Result]:
    full, sparse = (Result(Work("mobilenetv2", 224, 8, update, 2), 1, 2) for update in ("full", "last:6"))
    full.figures = {"edgekit": figures(100), "torch": figures(150), "tensorflow": figures(240)}
    sparse.figures = {
        "edgekit": figures(40, 50),
        "edgekit-cached": figures(20),
        "torch": figures(110, 500),
        "tensorflow": figures(60),
    }
    sparse.failed = {"mnn": "the loss left the numbers"}
    return [full, sparse]


def test_targets() -> None:
    found = {v.text.split(": ", 1)[1]: (v.ratio, v.word) for v in verdicts(results()) if "224²" in v.text and "Mobile" in v.text}
    assert found == {
        "full, beside the fastest peer": (1.5, "missed"),
        "sparse, beside the fastest peer's sparse": (1.5, "missed"),
        "sparse, beside TensorFlow's full": (6, "met"),
        "sparse and cached, beside TensorFlow's full": (12, "missed"),
        "sparse, beside the fastest edge stack's full": (None, "not measured"),
        "sparse and cached, beside the fastest edge stack's full": (None, "not measured"),
        "PyTorch's process memory beside the runner's": (10, "met"),
    }


def test_a_target_is_not_decided_by_disturbed_turns() -> None:
    measured = results()
    measured[1].figures["torch"].turns[:] = [Turn([70_000_000], 1.0)]
    words = {v.text.split(": ", 1)[1]: v.word for v in verdicts(measured) if "224²" in v.text and "Mobile" in v.text}
    assert words["sparse, beside the fastest peer's sparse"] == "disturbed"
    assert words["sparse, beside TensorFlow's full"] == "met"


def test_tables(tmp_path: Path) -> None:
    console = Console(record=True, width=150, file=(tmp_path / "out.txt").open("w"))
    report.show(console, results(), {"jax": "No matching distribution"})
    text = console.export_text()
    assert "60 ±0*" in text, "the fastest peer, edgekit aside, is marked"
    assert "110 ±0*" not in text
    assert "skipped: JAX: No matching distribution" in text
    assert "failed: MNN, mobilenetv2 8×224² last:6, 2 thr: the loss left the numbers" in text


@pytest.mark.parametrize("count", [1, 2])
def test_the_picture_of_a_run_that_goes_on(count: int, tmp_path: Path) -> None:
    report.plot(results()[:count], tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes()[:4] == b"\x89PNG"
