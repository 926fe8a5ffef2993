"""Records of training steps, the folder that keeps a run, and its summary."""

from edgekit.telemetry.provenance import provenance
from edgekit.telemetry.record import Record
from edgekit.telemetry.run import Run, RunFolder, new_run_path, read_run
from edgekit.telemetry.summary import Summary, summarize

__all__ = ["Record", "Run", "RunFolder", "Summary", "new_run_path", "provenance", "read_run", "summarize"]
