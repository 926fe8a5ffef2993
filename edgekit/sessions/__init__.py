"""Connect to a board; train, evaluate, predict and measure there."""

from edgekit.sessions.bench import Bench, Limits, OpTime
from edgekit.sessions.checkpoint import Checkpoint, read_checkpoint
from edgekit.sessions.data import OnBoard
from edgekit.sessions.device import Device, Metrics, connect
from edgekit.sessions.kept import KeptSessions
from edgekit.sessions.memory import Memory
from edgekit.sessions.session import Result, Session

__all__ = [
    "Bench",
    "Checkpoint",
    "Device",
    "KeptSessions",
    "Limits",
    "Memory",
    "Metrics",
    "OnBoard",
    "OpTime",
    "Result",
    "Session",
    "connect",
    "read_checkpoint",
]
