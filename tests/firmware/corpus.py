"""Seeds of the fuzz target: `python -m tests.firmware.corpus FOLDER` writes the sample Programs there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.firmware.samples import SAMPLES, program_of, training_program
from tests.runner.programs import prefixed


def write(folder: Path) -> None:
    """One file for each sample."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {f"{i:02}_{sample}": program_of(sample) for i, sample in enumerate(SAMPLES)}
    for name, program in {**programs, "training": training_program(), "prefix": prefixed()}.items():
        (folder / f"{name}.ekp").write_bytes(program.data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
