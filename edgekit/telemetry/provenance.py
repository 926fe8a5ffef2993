"""Where a run's numbers come from: versions, the command, the state of the git repository."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from typing import Any


def provenance() -> dict[str, Any]:
    """Facts of the host that a later reader needs to repeat a run. Unknown is None."""
    return {
        "command": sys.argv,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("edgekit", "torch", "numpy")},
        },
        "host": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The commit of the working folder's repository, and whether files differ from it."""
    commit = _run("git", "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": _run("git", "status", "--porcelain", "--untracked-files=no") != ""}


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
