"""Every command on the real runner: what it prints, its JSON, its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edgekit as package
from edgekit.cli.main import run
from edgekit.telemetry import read_run
from tests.cli.conftest import write_data
from tests.runner.programs import Classifier, prefixed
from tests.support.command import Run, document

MAIN = [sys.executable, "-c", "from edgekit.cli import main; main()"]


@pytest.mark.usefixtures("folder")
def test_train_then_evaluate_then_predict(edgekit: Run) -> None:
    code, out, _ = edgekit("train", "local", "model.ekp", "--data", "data", "--epochs", "4", "--run-dir", "run")
    assert code == 0
    assert "done after 20 steps" in out
    assert "run folder: run" in out
    _, before, _ = edgekit("evaluate", "local", "model.ekp", "--data", "data", "--json")
    _, after, _ = edgekit("evaluate", "local", "model.ekp", "--data", "data", "--checkpoint", "run", "--json")
    assert document(after)["loss"] < document(before)["loss"]
    assert document(after)["samples"] == 22
    code, out, _ = edgekit("predict", "local", "model.ekp", "--data", "data", "--checkpoint", "run", "--out", "y.npy")
    assert code == 0
    assert "y.npy" in out
    scores = np.load("y.npy")
    hits = (scores.argmax(1) == np.load("data/targets.npy")).mean()
    assert hits == pytest.approx(document(after)["accuracy"])


@pytest.mark.usefixtures("folder")
def test_train_reports_json_on_stdout_and_progress_on_stderr(edgekit: Run) -> None:
    code, out, err = edgekit("train", "local", "model.ekp", "--data", "data", "--seed", "3", "--run-dir", "run", "--json")
    result = document(out)
    assert code == 0
    assert result["state"] == "done"
    assert result["steps"] == result["planned"] == 5
    assert result["dropped"] == 2
    assert result["checkpoint"] == "run/final.ekc"
    assert result["summary"]["median_ms"] > 0
    assert "step 5/5" in err
    assert "ms/step" in err
    assert "iB" in err
    assert "°C" in err
    run_ = read_run(Path("run"))
    assert run_.facts["options"]["seed"] == 3
    assert len(run_.records) == 5


@pytest.mark.usefixtures("folder")
def test_train_goes_on_from_a_run(edgekit: Run) -> None:
    common = ("train", "local", "model.ekp", "--data", "data", "--epochs", "2", "--seed", "1")
    assert edgekit(*common, "--run-dir", "whole")[0] == 0
    assert edgekit(*common, "--run-dir", "part", "--steps", "6", "--checkpoint-every", "2")[0] == 0
    assert edgekit(*common, "--run-dir", "rest", "--resume", "part")[0] == 0
    whole, part, rest = (read_run(Path(name)).records for name in ("whole", "part", "rest"))
    assert [(r.step, r.loss) for r in part + rest] == [(r.step, r.loss) for r in whole]


@pytest.mark.usefixtures("folder")
def test_train_tells_what_was_cached(edgekit: Run) -> None:
    prefixed().save("prefixed.ekp")
    common = ("train", "local", "prefixed.ekp", "--data", "data", "--epochs", "3")
    code, out, _ = edgekit(*common)
    assert code == 0
    assert "frozen prefix: cached in float32 for 22 of 22 samples" in out
    _, out, _ = edgekit(*common, "--cache", "float16", "--cache-budget", "1kB", "--json")
    assert document(out)["cache"] == {
        "storage": "float16",
        "rows": 0,
        "samples": 0,
        "bytes": 0,
        "why": "it would take 1472 bytes, the budget is 1000",
    }
    _, out, _ = edgekit(*common, "--cache", "off", "--json")
    assert document(out)["cache"] is None
    code, _, err = edgekit("train", "local", "model.ekp", "--data", "data", "--epochs", "3", "--cache", "float32")
    assert code == 2
    assert "little or nothing is frozen" in err


@pytest.mark.usefixtures("folder")
def test_bench_prints_the_ops(edgekit: Run) -> None:
    code, out, _ = edgekit("bench", "local", "model.ekp", "--steps", "3", "--profile", "--threads", "1")
    assert code == 0
    assert "sgd_update" in out
    code, out, _ = edgekit("bench", "local", "model.ekp", "--steps", "3", "--json")
    result = document(out)
    assert len(result["step_ns"]) == 3
    assert result["memory"]["state"] > 0
    assert result["ops"] is None


@pytest.mark.usefixtures("folder")
def test_inspect_tells_draws_and_lists(edgekit: Run) -> None:
    code, out, _ = edgekit("inspect", "model.ekp")
    assert code == 0
    assert "train_step" in out
    code, out, err = edgekit("inspect", "model.ekp", "--json", "--plot", "memory.png", "--disassemble")
    assert code == 0
    assert any("sgd_update" in line for line in document(out)["disassembly"])
    assert "memory.png" in err
    assert Path("memory.png").read_bytes().startswith(b"\x89PNG")


def test_boards_lists_all(edgekit: Run) -> None:
    code, out, _ = edgekit("boards")
    assert code == 0
    assert "raspberry-pi-4b" in out
    assert {"local", "macbook-m1"} <= {b["id"] for b in document(edgekit("boards", "--json")[1])}


def test_help_names_every_command(edgekit: Run) -> None:
    code, out, _ = edgekit("--help")
    assert code == 0
    for name in ("compile", "inspect", "train", "evaluate", "predict", "bench", "boards", "doctor", "flash", "trust"):
        assert name in out
        assert edgekit(name, "--help")[0] == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "telnet://desk", "model.ekp", "--data", "data"), 2, "edgekit knows 'local'"),
        (("train", "local", "none.ekp", "--data", "data"), 9, "none.ekp"),
        (("train", "local", "data/inputs.npy", "--data", "data"), 5, "inputs.npy"),
        (("train", "local", "model.ekp", "--data", "none"), 4, "no folder none"),
        (("train", "local", "model.ekp", "--data", "data", "--epochs", "0"), 2, "--epochs"),
        (("train", "local", "model.ekp"), 2, "--data"),
        (("train", "local", "model.ekp", "--data", "data", "--isa", "mmx"), 6, "mmx"),
        (("train", "local", "model.ekp", "--data", "data", "--board", "toaster"), 2, "toaster"),
        (("evaluate", "local", "model.ekp", "--data", "data", "--checkpoint", "model.ekp"), 5, "no checkpoint"),
        (("predict", "local", "model.ekp", "--data", "data", "--out", "no/where.npy"), 9, "where.npy"),
        (("inspect", "none.ekp"), 9, "none.ekp"),
        (("frobnicate",), 2, "frobnicate"),
        (("compile", "model.py", "--out", "x.ekp"), 2, "file.py:callable"),
    ],
)
def test_a_mistake_has_its_exit_code_and_words(arguments: tuple[str, ...], code: int, words: str, edgekit: Run) -> None:
    got, out, err = edgekit(*arguments)
    assert got == code
    assert words in err.replace("\n", " ")
    assert "Traceback" not in err
    assert out == ""
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["cut", "flipped"])
def test_a_damaged_program_is_refused(name: str, folder: Path, edgekit: Run) -> None:
    data = bytearray((folder / "model.ekp").read_bytes())
    if name == "cut":
        del data[-100:]
    else:
        data[700] ^= 4
    (folder / "model.ekp").write_bytes(data)
    code, out, err = edgekit("evaluate", "local", "model.ekp", "--data", "data", "--json")
    assert code == 5
    assert document(out)["error"]["kind"] == "IntegrityError"
    assert document(out)["error"]["exit_code"] == 5
    assert "model.ekp" in err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"inputs": np.full((22, 3), np.nan, np.float32)}, "nan in sample 0"),
        ({"targets": np.full(22, 4)}, "out of range"),
        ({"inputs": np.zeros((22, 5), np.float32)}, "shape"),
        ({"targets": np.zeros(22)}, "float64"),
        ({"inputs": np.zeros((0, 3), np.float32), "targets": np.zeros(0, int)}, "empty"),
    ],
)
def test_bad_data_is_exit_code_4(arrays: dict[str, np.ndarray], words: str, edgekit: Run) -> None:
    write_data(Path("data"), **arrays)
    code, _, err = edgekit("train", "local", "model.ekp", "--data", "data")
    assert code == 4
    assert words in err
    assert "next:" in err


@pytest.mark.usefixtures("folder")
def test_divergence_is_exit_code_8(edgekit: Run) -> None:
    Classifier(lr=1e38).program().save("wild.ekp")
    code, _, err = edgekit("train", "local", "wild.ekp", "--data", "data", "--epochs", "20", "--run-dir", "run")
    assert code == 8
    assert "learning rate" in err
    assert read_run(Path("run")).facts["result"]["state"] == "failed"


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_board_and_completes_the_run(send: signal.Signals, folder: Path) -> None:
    command = [*MAIN, "train", "local", "model.ekp", "--data", "data", "--epochs", "500000", "--run-dir", "run", "--json"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    steps, end = folder / "run" / "steps.jsonl", time.monotonic() + 30
    while not (steps.exists() and steps.stat().st_size > 1000) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(send)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + send, err
    assert "Traceback" not in err
    run_ = read_run(folder / "run")
    assert run_.facts["result"]["state"] == "stopped"
    assert run_.facts["result"]["steps"] == len(run_.records)
    assert (folder / "run" / "final.ekc").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(run_.facts["board"]["pid"], 0)
    assert document(out)["state"] == "stopped"


@pytest.mark.usefixtures("folder")
def test_a_bug_is_no_traceback(edgekit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError(f"cannot happen with {path} [red]")

    monkeypatch.setattr(package, "load", broken)
    code, _, err = edgekit("inspect", "model.ekp")
    assert code == 70
    assert "RuntimeError: cannot happen with model.ekp [red]" in err
    assert "Traceback" not in err
    assert "--debug" in err
    assert "Traceback" in edgekit("--debug", "inspect", "model.ekp")[2]


def test_a_reader_that_leaves_is_no_error() -> None:
    command = " ".join(["exec", sys.executable, "-c", "'from edgekit.cli import main; main()'", "boards", "--json"])
    script = f"set -o pipefail; ({command}) | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_exit_codes_are_those_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    classes = [value for value in vars(package).values() if isinstance(value, type) and issubclass(value, package.EdgekitError)]
    assert len(classes) == 10
    for error in classes:
        assert f"| {error.exit_code} | `{error.__name__}` |" in page


def test_running_without_arguments_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in "".join(capsys.readouterr())
