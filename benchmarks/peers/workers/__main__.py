"""One worker: ``python -m benchmarks.peers.workers NAME FOLDER`` trains the job in a folder with the module of that name here."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from benchmarks.peers.job import Job
from benchmarks.peers.workers.serve import Trainer, serve


def make(name: str, folder: Path) -> Trainer:
    """The trainer of one peer, whose library finds as many cores as the job has threads, whatever it counts."""
    job = Job.load(folder)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    trainer: Trainer = importlib.import_module(f"benchmarks.peers.workers.{name}").Peer(job)
    return trainer


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    serve(lambda: make(name, folder), Job.load(folder).parameters)
