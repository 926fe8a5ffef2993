"""SMP version 2 messages between host and runner (docs/protocol.md)."""

from edgekit.protocol.client import PROTOCOL, Client
from edgekit.protocol.messages import Info, KeptSession, Loaded, MetricsReply, Started, StartRequest, Status

__all__ = ["PROTOCOL", "Client", "Info", "KeptSession", "Loaded", "MetricsReply", "StartRequest", "Started", "Status"]
