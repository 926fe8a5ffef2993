"""The whole way on a virtual Raspberry Pi: flash, train, cut the link, cut the power, resume; the same parameters to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import edgekit
from edgekit import devices
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import Connection
from edgekit.protocol.client import Restarted
from edgekit.sessions.flash import execute
from edgekit.sessions.flash_plan import plan_flash
from edgekit.telemetry import read_run
from edgekit.virtual import Settings, delete, start, stop, virtual_boards
from edgekit.virtual.known_hosts import known_hosts_file
from edgekit.virtual.settings import MIB
from tests.support.proxy import Proxy
from tests.virtual.conftest import need
from tests.zoo import lively, mobilenet_v2

pytestmark = pytest.mark.slow

DEVICE = "ssh://virtual-pi-4"
EPOCHS, SAMPLES = 6, 4
STEPS = EPOCHS * SAMPLES


@pytest.fixture(scope="module", autouse=True)
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A virtual board with a runner, and a folder to work in."""
    need("qemu-system-aarch64", "mkfs.ext4", "apt-get", "ssh", "sftp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("config")))
        patch.chdir(tmp_path_factory.mktemp("work"))
        try:
            start(Settings(disk=512 * MIB))
            with Connection(DEVICE) as connection:
                execute(connection, plan_flash(connection, Deadline.after(60)))
            yield
        finally:
            for one in virtual_boards():
                delete(one.name)


@pytest.fixture(scope="module")
def program() -> edgekit.Program:
    torch.manual_seed(0)
    model = lively(mobilenet_v2(0.35, 10))
    example = torch.randn(1, 3, 128, 128), torch.zeros(1, dtype=torch.int64)
    optimizer = edgekit.SGD(lr=0.01, momentum=0.9)
    return edgekit.compile(model, example, board="virtual-pi-4", update="mobilenetv2-49kb", optimizer=optimizer)


@pytest.fixture(scope="module")
def data() -> dict[str, object]:
    rng = np.random.default_rng(1)
    return {
        "inputs": rng.standard_normal((SAMPLES, 3, 128, 128), dtype=np.float32),
        "targets": rng.integers(0, 10, SAMPLES),
    }


@pytest.fixture(scope="module")
def uninterrupted(program: edgekit.Program, data: dict[str, object]) -> edgekit.Session:
    with edgekit.connect(DEVICE) as device:
        session = device.train(program, data, epochs=EPOCHS, seed=3, reset=True)
        assert [r.step for r in session] == list(range(1, STEPS + 1))
        assert (device.info.architecture, device.info.isa, device.board.id) == ("aarch64", "neon", "virtual-pi-4")
    return session


def same(session: edgekit.Session, other: edgekit.Session) -> None:
    """Every step once, at home too, and the same losses and parameters to the bit."""
    assert [r.step for r in session.records] == [r.step for r in other.records]
    assert [r.loss for r in session.records] == [r.loss for r in other.records]
    assert read_run(session.folder).records == session.records
    mine, theirs = session.state(), other.state()
    for name in theirs:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A way to the board that can be cut."""
    (one,) = virtual_boards()
    between = Proxy(one.port)
    known = known_hosts_file().read_text()
    known_hosts_file().write_text(known + known.replace(f":{one.port} ", f":{between.port} "))
    try:
        yield between
    finally:
        between.close()
        known_hosts_file().write_text(known)


def named(name: str, address: str) -> str:
    """Another name for the board, with its key."""
    identity = devices.load_devices()["virtual-pi-4"].identity
    devices.add(devices.KnownDevice(name=name, address=address, identity=identity))
    return name


def test_the_clock_jumps(program: edgekit.Program, data: dict[str, object], uninterrupted: edgekit.Session) -> None:
    (one,) = virtual_boards()
    root = named("root", f"ssh://root@127.0.0.1:{one.port}")
    with edgekit.connect(DEVICE) as device, Connection(root) as admin:
        session = device.train(program, data, epochs=EPOCHS, seed=3, reset=True)
        for record in session:
            if record.step in (2, 7):
                year = {2: "2001", 7: "2037"}[record.step]
                assert admin.run(["date", "-s", f"{year}-01-02 03:04:05"], Deadline.after(30)).code == 0
        assert session.ended_as == "done"
    same(session, uninterrupted)
    times = [record.time_ns for record in session.records]
    assert all(0 < later - earlier < 60e9 for earlier, later in itertools.pairwise(times))


def test_the_link_is_cut(program: edgekit.Program, data: dict[str, object], uninterrupted: edgekit.Session, proxy: Proxy) -> None:
    cut = named("cut", f"ssh://pi@127.0.0.1:{proxy.port}")
    with edgekit.connect(cut) as device:
        session = device.train(program, data, epochs=EPOCHS, seed=3, reset=True)
        for record in session:
            if record.step in (2, 7):
                proxy.cut()
                proxy.heal()
        assert session.ended_as == "done"
        assert len([s for s in device.sessions.list() if s.id == session.id]) == 1
    same(session, uninterrupted)


def test_the_power_is_cut(program: edgekit.Program, data: dict[str, object], uninterrupted: edgekit.Session) -> None:
    with edgekit.connect(DEVICE) as device:
        session = device.train(program, data, epochs=EPOCHS, seed=3, reset=True, checkpoint_every=5)
        records = iter(session)
        for _ in range(8):
            next(records)
        stop("virtual-pi-4", kill=True)
        start(Settings(disk=512 * MIB))
        with pytest.raises(Restarted):
            list(records)
    assert session.id is not None
    with edgekit.connect(DEVICE) as device:
        kept = next(s for s in device.sessions.list() if s.id == session.id)
        assert (kept.state, kept.checkpoint) == ("interrupted", 5)
        resumed = device.sessions.resume(session.id)
        resumed.result()
    assert resumed.folder == session.folder
    same(resumed, uninterrupted)
