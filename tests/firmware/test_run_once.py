"""Whole entries through run_once: the training sample against the reference results, and every way to ask wrongly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit.graph.entry import Role
from edgekit.program import Program
from edgekit.program.arrays import encode
from edgekit.protocol.status import Status
from tests.firmware.samples import training_program
from tests.firmware.tools import SANITIZED, executable
from tests.support.simulator import Simulator

FEEDS = {
    (Role.INPUT, 0): np.array([[1, -2, 3, 0.5], [0.25, 2, -1, 4]], np.float32),
    (Role.TARGET, 0): np.array([2, 0], np.int32),
    (Role.STEP, 0): np.array([7, 3], np.int32),
}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = training_program()
    made.save(tmp_path / "program.ekp")
    return made


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (executable("run_once"), "program.ekp", *arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=SANITIZED, timeout=60)


def write_inputs(program: Program, entry: str, folder: Path) -> None:
    ports = [p for p in program.entries[entry].ports if (p.role, p.index) in FEEDS]
    data = b"".join(encode(FEEDS[p.role, p.index], program.tensors[p.tensor].type) for p in ports)
    (folder / "inputs").write_bytes(data)


@pytest.mark.parametrize("entry", ["train_step", "evaluate", "predict"])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_entry_matches_reference(program: Program, entry: str, threads: str, tmp_path: Path) -> None:
    write_inputs(program, entry, tmp_path)
    done = run(tmp_path, entry, "inputs", "outputs", "--threads", threads)
    assert done.returncode == 0, done.stderr

    simulator = Simulator(program)
    expected = simulator.run(entry, FEEDS)
    contents, at = (tmp_path / "outputs").read_bytes(), 0
    for port in program.entries[entry].ports:
        if (port.role, port.index) in expected:
            want = expected[port.role, port.index]
            got = np.frombuffer(contents[at : at + want.nbytes], want.dtype).reshape(want.shape)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
            at += want.nbytes
    assert len(contents) - at == program.header.state_bytes
    for name in ("w", "velocity"):
        offset, want = at + program.tensor(name).offset, simulator.state(name)
        got = np.frombuffer(contents[offset : offset + want.nbytes], want.dtype).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    trained = not np.array_equal(simulator.state("w"), program.state_init("w"))
    assert trained == (entry == "train_step")


def test_runs_start_alike(program: Program, tmp_path: Path) -> None:
    """--arena and --dump: the image of every run, the same each time."""
    (tmp_path / "arena").write_bytes(bytes(program.header.arena_bytes))
    done = run(tmp_path, "1", "--arena", "arena", "--dump", "dump", "--runs", "3")
    assert done.returncode == 0, done.stderr
    size, dump = program.header.arena_bytes + program.header.state_bytes, (tmp_path / "dump").read_bytes()
    assert len(dump) == 3 * size
    assert dump[:size] == dump[size : 2 * size] == dump[2 * size :]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("update", "inputs", "outputs"), Status.NOT_FOUND, "no entry"),
        (("jump", "inputs", "outputs"), Status.NOT_FOUND, "no entry"),
        (("predict", "nowhere", "outputs"), Status.NOT_FOUND, "nowhere"),
        (("predict", "inputs", "nowhere/outputs"), Status.IO, "nowhere"),
        (("train_step", "inputs", "outputs"), Status.BAD_DATA, "do not fill"),
        (("predict", "inputs", "outputs", "--isa", "mmx"), Status.BAD_REQUEST, "mmx"),
        (("predict", "inputs", "outputs", "--speed", "9"), Status.BAD_REQUEST, "arguments"),
        (("predict", "inputs"), Status.BAD_REQUEST, "arguments"),
        (("predict", "inputs", "outputs", "--threads", "0"), Status.NO_MEMORY, "0 threads"),
        (("predict", "--arena", "inputs"), Status.BAD_DATA, "arena"),
    ],
)
def test_wrong_requests(program: Program, arguments: tuple[str, ...], status: Status, text: str, tmp_path: Path) -> None:
    write_inputs(program, "predict", tmp_path)
    done = run(tmp_path, *arguments)
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr


def test_lists_backends() -> None:
    done = subprocess.run((executable("run_once"), "--list"), capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"avx512_vnni", "avx512", "avx2_vnni", "avx2", "plain", "neon_dotprod", "neon"}
    assert {"plain", "neon"} & set(done.stdout.split())
