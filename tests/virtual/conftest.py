"""Configuration folders of the tests' own, and a check for what a virtual board needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder."""
    folder = tmp_path / "config"
    monkeypatch.setenv("EDGEKIT_CONFIG", str(folder))
    return folder


def need(*programs: str) -> None:
    """Skip where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None and shutil.which(program, path="/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")
