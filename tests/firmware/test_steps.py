"""Training steps of a Program that is part of a microcontroller's image, within an STM32F746's memory."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
import torch
from edgekit.firmware.build import BuildError, build

import edgekit
from benchmarks.microcontroller import run
from edgekit.graph.entry import Role
from edgekit.program import load
from edgekit.program.writer import without_metadata
from edgekit.virtual import M7
from tests.virtual.conftest import need


def program(width: int, board: str = M7) -> edgekit.Program:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        torch.nn.ReLU6(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 64, width),
        torch.nn.Linear(width, 4),
    ).eval()
    example = torch.randn(4, 3, 16, 16), torch.arange(4)
    return edgekit.compile(model, example, board=board, update="last:1", quantize=edgekit.Int8(example[0]))


def test_a_program_without_metadata_is_whole(tmp_path: Path) -> None:
    own = program(8)
    own.save(tmp_path / "whole.ekp")
    (tmp_path / "bare.ekp").write_bytes(without_metadata((tmp_path / "whole.ekp").read_bytes()))
    bare = load(tmp_path / "bare.ekp")
    assert bare.header.constants_bytes == own.header.constants_bytes
    assert bare.header.file_bytes < own.header.file_bytes
    assert "bindings" in own.metadata
    assert "bindings" not in bare.metadata


@pytest.mark.slow
def test_steps_on_the_board_are_those_of_the_host(tmp_path: Path) -> None:
    need("qemu-system-arm")
    own = program(16)
    lines, image = run(own)
    (first, second) = (words for words in lines if words[0] == "step")
    assert int(first[2]) == pytest.approx(int(second[2]), rel=0.01), "instructions of a step"
    assert 0 < image < 1 << 20
    host = program(16, "local")
    host.save(tmp_path / "p.ekp")
    ports = (p for p in host.entries["train_step"].ports if p.role in (Role.INPUT, Role.TARGET, Role.STEP))
    sizes = [host.tensors[p.tensor].type.nbytes for p in ports]
    (tmp_path / "in").write_bytes(bytes(sum(sizes)))
    tool = build("run_once", "x86_64-linux")
    subprocess.run([tool, tmp_path / "p.ekp", "train_step", tmp_path / "in", tmp_path / "out"], check=True)
    (loss,) = struct.unpack_from("<f", (tmp_path / "out").read_bytes())
    (ours,) = struct.unpack("<f", int(first[4], 16).to_bytes(4, "little"))
    assert ours == pytest.approx(loss, rel=1e-6)


@pytest.mark.slow
def test_what_does_not_fit_is_not_linked() -> None:
    with pytest.raises(BuildError, match="will not fit in region 'BOOT'"):
        run(program(2048))
