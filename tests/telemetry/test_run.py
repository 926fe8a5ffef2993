"""A run's folder: written step by step, read back, cut off, damaged, on a full disk."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.errors import InputError, IntegrityError, StorageError
from edgekit.files import write_atomic
from edgekit.telemetry import Record, RunFolder, new_run_path, provenance, read_run, summarize

WIRE = [7, 3, 1, 0.5, 9_000_000, 1_000_000, 7_000_000, 1_000_000, 123, 48_250, 1_500_000, 0, 2_500_000, 4096]


def record(step: int, milliseconds: float = 1.0, loss: float = 1.0) -> Record:
    return Record(step, 0, loss, int(milliseconds * 1e6), 1, 2, 3, 4)


def test_a_record_has_the_boards_units() -> None:
    r = Record.from_wire(WIRE)
    assert (r.step, r.epoch, r.loss, r.step_ns) == (3, 1, 0.5, 9_000_000)
    assert (r.temperature_c, r.clock_khz, r.throttled, r.power_w, r.rss_bytes) == (48.25, 1_500_000, 0, 2.5, 4096)


def test_unknown_stays_unknown() -> None:
    r = Record.from_wire([*WIRE[:9], None, None, None, None, None])
    assert (r.temperature_c, r.clock_khz, r.throttled, r.power_w, r.rss_bytes) == (None,) * 5


def test_a_short_record_is_an_error() -> None:
    with pytest.raises(ValueError, match="14"):
        Record.from_wire(WIRE[:8])


def test_a_newer_runners_longer_record_is_read() -> None:
    assert Record.from_wire([*WIRE, "new"]) == Record.from_wire(WIRE)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", {"program": "abc"})
    records = [record(1), record(2, loss=math.inf), Record.from_wire(WIRE)]
    for r in records:
        folder.append(r)
    folder.note(result="done")
    folder.close()
    folder.close()
    run = read_run(tmp_path / "run")
    assert run.facts == {"program": "abc", "result": "done"}
    assert run.records[0] == records[0]
    assert run.records[2] == records[2]
    assert math.isnan(run.records[1].loss)
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [1.0, None, 0.5]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    folder.append(record(1))
    folder.append(record(2))
    folder.close()
    steps = tmp_path / "steps.jsonl"
    whole = steps.read_bytes()
    for cut in range(1, len(whole)):
        steps.write_bytes(whole[:cut])
        assert [r.step for r in read_run(tmp_path).records] == [1, 2][: whole[:cut].count(b"\n")]


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"step": 1', b"\xff"])
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    folder.append(record(1))
    folder.close()
    with (tmp_path / "steps.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(IntegrityError, match="line 2"):
        read_run(tmp_path)


def test_no_run_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"run\.json"):
        read_run(tmp_path)


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    RunFolder(tmp_path, {}).close()
    with pytest.raises(InputError, match="holds a run"):
        RunFolder(tmp_path, {})
    first = new_run_path(tmp_path, "my model/1")
    first.mkdir()
    second = new_run_path(tmp_path, "my model/1")
    assert first.name.endswith("-my-model-1")
    assert first != second


FULL = """
import resource, sys
from pathlib import Path
from edgekit.errors import StorageError
from edgekit.telemetry import Record, RunFolder
folder = RunFolder(Path(sys.argv[1]), {})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for step in range(1, 100):
        folder.append(Record(step, 0, 1.0, 2, 3, 4, 5, 6))
except StorageError as error:
    print(step, error.message)
"""


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    step, message = done.stdout.split(maxsplit=1)
    assert "disk is full" in message
    assert "steps.jsonl" in message
    assert (tmp_path / "steps.jsonl").read_bytes().endswith(b"\n")
    assert len(read_run(tmp_path).records) == int(step) - 1


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageError, match="disk is full") as caught:
            write_atomic(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        write_atomic(tmp_path / "no" / "file", b"")


def test_the_summary_leaves_the_first_step_out_of_the_times() -> None:
    s = summarize([record(1, 100.0, loss=3.0), *(record(i, float(i)) for i in range(2, 13))])
    assert (s.steps, s.first_loss, s.last_loss) == (12, 3.0, 1.0)
    assert (s.median_ms, s.p10_ms, s.p90_ms) == (7.0, 3.0, 11.0)
    assert s.peak_rss_bytes is None
    assert s.mean_power_w is None


def test_the_summary_of_nothing_is_unknown() -> None:
    s = summarize([])
    assert s.steps == 0
    assert s.median_ms is None
    assert s.last_loss is None


def test_provenance_names_the_versions() -> None:
    facts = provenance()
    assert facts["versions"]["edgekit"]
    assert facts["versions"]["torch"]
    assert json.dumps(facts)
