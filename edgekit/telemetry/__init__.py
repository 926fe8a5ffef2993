"""Records of training steps, the folder that keeps a run, and its summary."""

from edgekit.telemetry.provenance import provenance
from edgekit.telemetry.record import Record
from edgekit.telemetry.run import RUN, Run, RunFolder, clean_name, new_run_path, read_run
from edgekit.telemetry.summary import Summary, summarize

__all__ = ["RUN", "Record", "Run", "RunFolder", "Summary", "clean_name", "new_run_path", "provenance", "read_run", "summarize"]
