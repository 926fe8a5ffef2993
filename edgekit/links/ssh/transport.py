"""paramiko's transport, which also remembers why the server hung up."""

from __future__ import annotations

import paramiko


class Transport(paramiko.Transport):
    """``farewell`` is the text of the server's disconnect message; empty where the connection broke without a word."""

    farewell = ""

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = message.get_text()
