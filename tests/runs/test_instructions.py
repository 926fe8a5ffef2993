"""The instruction benchmark on its board: the same steps take the same instructions, and compute what they compute here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.instructions.board import CountingBoard, counting_board
from benchmarks.instructions.measure import check_same, run_edgekit
from benchmarks.peers import networks
from benchmarks.peers.checks import Different
from benchmarks.peers.job import Job
from benchmarks.peers.measure import make_job
from benchmarks.peers.networks import Work
from benchmarks.peers.workers.serve import state_of
from benchmarks.peers.workers.torch_eager import Peer
from edgekit.virtual import MACHINE
from examples.models import MobileNetV2
from tests.virtual.conftest import need

pytestmark = pytest.mark.slow

STEPS = 8


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingBoard]:
    need("qemu-system-aarch64", "mkfs.ext4", "apt-get")
    home = tmp_path_factory.mktemp("home")
    (home / "brought").write_text("from the host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("config")))
        with counting_board("counting", home) as made:
            yield made


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "tiny", lambda: MobileNetV2(1.0, 10, [(1, 16, 1, 1, 3), (6, 32, 2, 2, 3)], 16, 16))
        return make_job(Work("tiny", 32, 4, "last:1", 1), tmp_path_factory.mktemp("job"), MACHINE)


def test_its_home_has_the_files_that_it_was_given(board: CountingBoard) -> None:
    assert board.run("cat /home/brought") == "from the host"
    assert board.run("cat", b"all of its input") == "all of its input"
    with pytest.raises(RuntimeError, match="ended with 3"):
        board.run("exit 3")


def test_steps_take_the_same_instructions_and_do_pytorchs_work(board: CountingBoard, job: Job, tmp_path: Path) -> None:
    first, second = (run_edgekit(board, job, STEPS, tmp_path / name) for name in ("first", "second"))
    assert len(first.counts) == STEPS
    assert first.losses == second.losses
    least = min(first.counts), min(second.counts)  # timer and SSH server have the same core: 2 % of a step
    assert least[0] == pytest.approx(least[1], rel=0.05)

    peer = Peer(job)
    losses, _ = peer.run(STEPS + 1)
    given = job.parameters()
    states = {name: state_of(given[name], array) for name, array in peer.parameters().items()}
    reference = type(first)(tuple(losses), first.counts, states)
    check_same(job, reference, first)
    with pytest.raises(Different, match="was to be trained and did not move"):
        check_same(job, reference, type(first)(first.losses, first.counts, {n: state_of(a, a) for n, a in given.items()}))
