"""The C server answers the golden requests byte for byte, built with address and undefined-behaviour sanitizers."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.runner import make_golden

HERE = Path(__file__).parent
FIRMWARE = HERE.parent.parent / "firmware"
VECTORS: list[dict[str, Any]] = json.loads(make_golden.GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs clang or gcc")
    program = tmp_path_factory.mktemp("replay") / "replay"
    sources = [HERE / "replay.c", *FIRMWARE.glob("core/*.c"), *FIRMWARE.glob("runner/*.c"), FIRMWARE / "posix" / "files.c"]
    sources.append(FIRMWARE / "posix" / "pool.c")
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    includes = [f"-I{FIRMWARE / folder}" for folder in ("core", "posix")]
    subprocess.run([compiler, *flags, *includes, *map(str, sources), "-lm", "-pthread", "-o", str(program)], check=True)
    return program


def test_the_vectors_are_what_the_standard_packages_make() -> None:
    assert make_golden.text() == make_golden.GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("scene", sorted({v["scene"] for v in VECTORS if v["replayed"]}))
def test_every_request_gets_the_golden_answer(replay: Path, scene: str, tmp_path: Path) -> None:
    vectors = [v for v in VECTORS if v["scene"] == scene and v["replayed"]]
    requests = "\n".join(v["request"] for v in vectors) + "\n"
    home = [str(tmp_path)] if scene == "home" else []
    if home:
        make_golden.write_home(tmp_path)
    done = subprocess.run([str(replay), scene, *home], input=requests, capture_output=True, text=True, check=True)
    answers = done.stdout.split()
    assert len(answers) == len(vectors)
    wrong = [(v["name"], v["response"], a) for v, a in zip(vectors, answers, strict=True) if v["response"] != a]
    assert wrong == []


def test_names_are_unique_and_every_command_is_there() -> None:
    names = [v["name"] for v in VECTORS]
    assert len(set(names)) == len(names)
    headers = [bytes.fromhex(v["request"])[:8] for v in VECTORS]
    commands = {h[7] for h in headers if int.from_bytes(h[4:6], "big") == make_golden.TRAINING}
    assert commands >= set(range(14))


def test_scenes_come_in_one_piece() -> None:
    """replay.c sets a scene up once; what a request changes is seen by the next."""
    scenes = [scene for scene, _ in groupby(v["scene"] for v in VECTORS if v["replayed"])]
    assert scenes.count("running") == 1
