"""One worker: ``python -m benchmarks.peers.workers MODULE:CLASS FOLDER`` trains the job in a folder with that Trainer."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from benchmarks.peers.job import Job
from benchmarks.peers.workers.serve import Trainer, serve


def make(worker: str, folder: Path) -> Trainer:
    """The trainer of one peer, whose library finds as many cores as the job has threads, whatever it counts."""
    module, kind = worker.split(":")
    job = Job.load(folder)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    trainer: Trainer = getattr(importlib.import_module(module), kind)(job)
    return trainer


if __name__ == "__main__":
    worker, folder = sys.argv[1], Path(sys.argv[2])
    serve(lambda: make(worker, folder), Job.load(folder))
