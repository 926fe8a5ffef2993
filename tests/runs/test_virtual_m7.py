"""The whole way on a virtual Cortex-M7: boot, train, evaluate, predict, other SMP tools, restarts."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from smpclient import SMPClient
from smpclient.generics import success
from smpclient.requests.file_management import FileHashChecksum
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead, ResetWrite
from smpclient.transport.serial import SMPSerialTransport

import edgekit
from edgekit.cli.main import run
from edgekit.links import Deadline, open_link
from edgekit.links.serial import SerialLink
from edgekit.links.serial.files import upload
from edgekit.virtual import M7, Settings, start, stop, virtual_boards
from tests.support.microcontroller import virtual_m7
from tests.support.pty import port_to

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A virtual microcontroller, and a folder to work in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("config")))
        patch.chdir(tmp_path_factory.mktemp("work"))
        with virtual_m7():
            yield


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1, stride=2),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    ).eval()


def program(board: str, lr: float = 0.02) -> edgekit.Program:
    example = torch.randn(8, 1, 8, 8), torch.arange(8)
    return edgekit.compile(small_network(), example, board=board, optimizer=edgekit.SGD(lr=lr, momentum=0.9))


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    """Images of 0 … 16 as bytes: the line is slow."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return {"inputs": data.images.astype(np.uint8)[:, None], "targets": data.target.astype(np.uint8)}


def part(data: dict[str, np.ndarray], first: int, last: int) -> dict[str, np.ndarray]:
    return {name: array[first:last] for name, array in data.items()}


@pytest.mark.parametrize("stream", [False, True])
def test_it_learns_as_this_machine_does(digits: dict[str, np.ndarray], stream: bool) -> None:
    """The same losses, metrics, outputs and parameters but for rounding, whether the data lies there or comes in shards."""
    results = []
    for name in ("local", M7):
        with edgekit.connect(name) as device:
            own = program(name)
            session = device.train(own, part(digits, 0, 256), epochs=2, seed=3, stream=stream if name == M7 else False)
            losses = [record.loss for record in session]
            metrics = device.evaluate(own, part(digits, 256, 324))
            outputs = device.predict(own, digits["inputs"][256:300])
            results.append((losses, metrics, outputs, session.state(), session.records))
    (losses, metrics, outputs, state, _), (m7_losses, m7_metrics, m7_outputs, m7_state, records) = results
    assert len(losses) == 64
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    np.testing.assert_allclose(m7_losses, losses, rtol=2e-4)
    assert (m7_metrics.accuracy, m7_metrics.samples) == (metrics.accuracy, 68)
    assert m7_metrics.loss == pytest.approx(metrics.loss, rel=2e-4)
    np.testing.assert_allclose(m7_outputs, outputs, rtol=1e-3, atol=1e-3)
    assert state.keys() == m7_state.keys()
    for name, array in state.items():
        np.testing.assert_allclose(m7_state[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    assert all(0 < record.rss_bytes < 4 << 20 for record in records)


def test_int8_computes_the_same_integers(digits: dict[str, np.ndarray]) -> None:
    """Scores before training are this machine's to the bit, for the int8 program compiled for each; it learns as here."""
    samples = torch.from_numpy(digits["inputs"][:96]).float()
    results = []
    for name in ("local", M7):
        example = samples[:8], torch.arange(8)
        optimizer = edgekit.SGD(lr=0.2)
        own = edgekit.compile(small_network(), example, board=name, optimizer=optimizer, quantize=edgekit.Int8(samples))
        with edgekit.connect(name) as device:
            before = device.predict(own, digits["inputs"][:64])
            session = device.train(own, part(digits, 0, 256), epochs=2, seed=3)
            results.append((before, [record.loss for record in session]))
    (outputs, losses), (m7_outputs, m7_losses) = results
    np.testing.assert_array_equal(m7_outputs, outputs)
    assert m7_losses[0] == pytest.approx(losses[0], rel=1e-5)
    assert np.mean(m7_losses[-8:]) < 0.9 * np.mean(m7_losses[:8])
    assert np.mean(m7_losses[-8:]) == pytest.approx(np.mean(losses[-8:]), rel=0.1)


def test_the_command_line_works_as_for_other_devices(
    digits: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.ekp"
    program(M7).save(file)
    for name, array in part(digits, 0, 64).items():
        np.save(tmp_path / f"{name}.npy", array)

    def ask(*words: str | Path) -> dict[str, object]:
        assert run([*map(str, words), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    trained = ask("train", M7, file, "--data", tmp_path, "--run-dir", tmp_path / "run")
    assert (trained["state"], trained["steps"]) == ("done", 8)
    assert ask("evaluate", M7, file, "--data", tmp_path, "--checkpoint", tmp_path / "run")["samples"] == 64
    assert len(ask("bench", M7, file, "--steps", "3", "--profile")["ops"]) > 8
    checks = ask("doctor", M7)["checks"]
    assert [c["name"] for c in checks if c["outcome"] != "ok"] == []
    assert next(c["detail"] for c in checks if c["name"] == "image slots").endswith(", runs")
    assert {"name": M7, "link": "serial"}.items() <= ask("devices", "--timeout", "0.1")["found"][0].items()


def test_a_restart_is_noticed_and_its_reason_told() -> None:
    with edgekit.connect(M7) as device:
        before = device.info.instance
        device.client.reset()
    with edgekit.connect(M7) as device:
        assert device.info.reset == "reset on request"
        assert device.info.instance != before
        assert 256 < device.info.stack < 16384


def test_a_program_outlives_a_reset_and_the_power(digits: dict[str, np.ndarray], tmp_path: Path) -> None:
    own = program(M7)
    own.save(tmp_path / "model.ekp")
    with edgekit.connect(M7) as device:
        outputs = device.predict(own, digits["inputs"][:8])
        device.client.reset()
    with edgekit.connect(M7) as device:
        assert device.client.missing(tmp_path / "model.ekp") == 0
    stop(M7)
    start(Settings.from_profile(M7, machine=M7))
    with edgekit.connect(M7) as device:
        assert device.client.missing(tmp_path / "model.ekp") == 0
        np.testing.assert_array_equal(device.predict(own, digits["inputs"][:8]), outputs)


def test_a_push_goes_on_after_a_cut_of_power(digits: dict[str, np.ndarray], tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 10)
    ).eval()
    own = edgekit.compile(network, (torch.randn(8, 1, 8, 8), torch.arange(8)), board=M7)
    own.save(tmp_path / "model.ekp")
    content = (tmp_path / "model.ekp").read_bytes()
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.ekp"
    link = open_link(M7)
    assert isinstance(link, SerialLink)
    pushing = upload(link.line, name, content, Deadline.after(300))
    while (had := next(pushing)) < len(content) / 2:
        pass
    stop(M7, kill=True)
    link.close()
    start(Settings.from_profile(M7, machine=M7))
    moved: list[int] = []
    with edgekit.connect(M7, progress=lambda one: moved.append(one.done) if one.total == len(content) else None) as device:
        assert device.info.reset == "power-on"
        outputs = device.predict(own, digits["inputs"][:8])
    assert had - 64 < moved[0] < moved[-1] == len(content)
    expected = network(torch.from_numpy(digits["inputs"][:8]).float()).detach().numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-3)


def test_doctor_displaces_no_program(tmp_path: Path) -> None:
    files = [tmp_path / f"{lr}.ekp" for lr in (0.04, 0.05)]
    with edgekit.connect(M7) as device:
        for file, lr in zip(files, (0.04, 0.05), strict=True):
            program(M7, lr).save(file)
            device.client.load(device.client.put_file(file))  # so that the next one goes to the other slot
    assert run(["doctor", M7]) == 0
    with edgekit.connect(M7) as device:
        assert [device.client.missing(file) for file in files] == [0, 0]


def test_a_program_for_another_board_is_refused_and_the_old_one_stays(digits: dict[str, np.ndarray]) -> None:
    with edgekit.connect(M7) as device:
        own = program(M7)
        device.predict(own, digits["inputs"][:8])
        big = edgekit.compile(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 65536)).eval(),
            (torch.randn(8, 1, 8, 8), torch.zeros(8, 65536)),
            loss="mse",
            board=M7,
        )
        with pytest.raises(edgekit.EdgekitError, match="no room"):
            device.predict(big, digits["inputs"][:8])
        with pytest.raises(edgekit.InputError, match="has armv7e-m"):
            device.predict(program("local"), digits["inputs"][:8])
        assert device.client.status().state == "done"


def test_a_program_that_another_smp_tool_brought_trains(digits: dict[str, np.ndarray], tmp_path: Path) -> None:
    """smpclient's file upload, under the name by which edgekit finds a program: its SHA-256."""
    own, file = program(M7, lr=0.03), tmp_path / "model.ekp"
    own.save(file)
    content = file.read_bytes()
    sha = hashlib.sha256(content).digest()
    name = f"{sha.hex()[:16]}.ekp"

    async def session(port: str) -> None:
        async with SMPClient(SMPSerialTransport(), port, timeout_s=20) as client:
            assert not success(await client.request(FileHashChecksum(name=name, type="sha256")))
            assert [there async for there in client.upload_file(content, name)][-1] == len(content)
            answer = await client.request(FileHashChecksum(name=name, type="sha256"))
            assert success(answer)
            assert (answer.output, answer.len) == (sha, len(content))

    (board,) = virtual_boards()
    with port_to("127.0.0.1", board.port) as port:
        asyncio.run(session(port))
    moved: list[str] = []
    with edgekit.connect(M7, progress=lambda one: moved.append(one.name)) as device:
        assert device.client.missing(file) == 0
        assert [record.step for record in device.train(own, part(digits, 0, 8), steps=1)] == [1]
    assert moved
    assert not [name for name in moved if name.endswith(".ekp")]


def test_another_smp_tool_works_unchanged() -> None:
    async def session(port: str) -> None:
        async with SMPClient(SMPSerialTransport(), port, timeout_s=20) as client:
            said = await client.request(EchoWrite(d="grüße " * 40))
            assert success(said)
            assert said.r == "grüße " * 40
            parameters = await client.request(MCUMgrParametersRead())
            assert success(parameters)
            assert parameters.buf_size == 2048
            content = bytes(range(256)) * 9
            assert [there async for there in client.upload_file(content, "notes")][-1] == len(content)
            assert await client.download_file("notes") == content
            assert success(await client.request(ResetWrite()))

    (board,) = virtual_boards()
    with port_to("127.0.0.1", board.port) as port:
        asyncio.run(session(port))
    with edgekit.connect(M7) as device:
        assert device.info.reset == "reset on request"
