"""What edgekit wants to reach beside its peers, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.peers.environments import PEERS
from benchmarks.peers.measure import Figures, Result
from benchmarks.peers.networks import FULL, SPARSE

EDGE_STACKS = ("tflite", "mnn", "onnxruntime")
CACHED = "edgekit-cached"
BATCH = 8

Names = tuple[str, ...] | None  #: peers; None: all there are


@dataclass(frozen=True)
class Verdict:
    """``ratio`` is None where the run had not what it takes, ``comparable`` False where other processes disturbed it."""

    text: str
    wanted: float
    ratio: float | None
    comparable: bool = True

    @property
    def word(self) -> str:
        if self.ratio is None:
            return "not measured"
        if not self.comparable:
            return "disturbed"
        return "met" if self.ratio >= self.wanted else "missed"


@dataclass(frozen=True)
class Ratio:
    """The least of some peers' figures over edgekit's."""

    value: float | None = None
    comparable: bool = True


def verdicts(results: Iterable[Result]) -> list[Verdict]:
    """All targets, each for batch 8. Speed is the ratio of medians."""
    runs = {(r.work.network, r.work.size, r.work.update): r.figures for r in results if r.work.batch == BATCH}

    def speed(network: str, size: int, update: str, theirs: str, peers: Names = None, ours: str = "edgekit") -> Ratio:
        return _ratio(runs.get((network, size, update)), runs.get((network, size, theirs)), _median_ms, peers, ours)

    def mobilenet(
        text: str, wanted: float, update: str, theirs: str, peers: Names = None, ours: str = "edgekit"
    ) -> list[Verdict]:
        sizes = {size: speed("mobilenetv2", size, update, theirs, peers, ours) for size in (224, 128)}
        return [_verdict(f"MobileNetV2-1.0, {size}²: {text}", wanted, ratio) for size, ratio in sizes.items()]

    sparse = runs.get(("mobilenetv2", 224, SPARSE))
    return [
        *mobilenet("full, beside the fastest peer", 2, FULL, FULL),
        *mobilenet("sparse, beside the fastest peer's sparse", 2, SPARSE, SPARSE),
        *mobilenet("sparse, beside TensorFlow's full", 6, SPARSE, FULL, ("tensorflow",)),
        *mobilenet("sparse and cached, beside TensorFlow's full", 15, SPARSE, FULL, ("tensorflow",), ours=CACHED),
        *mobilenet("sparse, beside the fastest edge stack's full", 10, SPARSE, FULL, EDGE_STACKS),
        *mobilenet("sparse and cached, beside the fastest edge stack's full", 25, SPARSE, FULL, EDGE_STACKS, ours=CACHED),
        _verdict("ResNet-18, 224²: full, beside the fastest peer", 1.3, speed("resnet18", 224, FULL, FULL)),
        _verdict("ResNet-50, 224²: full, beside the fastest peer", 1.3, speed("resnet50", 224, FULL, FULL)),
        Verdict(
            "MobileNetV2-1.0, 224², sparse: PyTorch's process memory beside the runner's",
            8,
            _ratio(sparse, sparse, lambda f: f.process_bytes, ("torch",)).value,  # which nobody disturbs
        ),
    ]


def fastest_peer(figures: dict[str, Figures]) -> str | None:
    """The peer, edgekit aside, with the least median."""
    return min((n for n in figures if not PEERS[n].ours), key=lambda n: figures[n].median_ms, default=None)


def _verdict(text: str, wanted: float, ratio: Ratio) -> Verdict:
    return Verdict(text, wanted, ratio.value, ratio.comparable)


def _ratio(
    ours: dict[str, Figures] | None,
    theirs: dict[str, Figures] | None,
    of: Callable[[Figures], float],
    peers: Names,
    name: str = "edgekit",
) -> Ratio:
    """Without a value if a peer that is named is missing, or nothing is there. Who was disturbed might be the fastest one."""
    if ours is None or theirs is None or name not in ours:
        return Ratio()
    names = [n for n in theirs if not PEERS[n].ours] if peers is None else peers
    if not names or any(n not in theirs for n in names):
        return Ratio()
    compared = [theirs[n] for n in names]
    return Ratio(min(map(of, compared)) / of(ours[name]), all(f.comparable for f in (ours[name], *compared)))


def _median_ms(figures: Figures) -> float:
    return figures.median_ms
