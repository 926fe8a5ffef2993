"""A serial line with its framing: COBS where the board knows it, else console framing."""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable

from edgekit.links.deadline import Deadline
from edgekit.links.serial.address import BAUD, Address, parse
from edgekit.links.serial.framing import Deframer, Frame, Kind, encode_cobs, encode_console
from edgekit.links.serial.port import Port, open_port

_HELLO = struct.Struct("<B3xIII")  #: version, longest message, window, baud
_VERSION = 1
_HELLO_SECONDS = 0.5
_HELLO_TRIES = 4  #: a board that starts, or ends a step, takes a moment
_CONSOLE_BYTES = 1024  #: of a message to a board that only knows the console; it says more in its parameters
_TRIAL_SECONDS = 1.2  #: after which a board is back at its old rate

#: Called with each line of the log.
Listener = Callable[[str], None]


class Line:
    """Messages and log lines over a port.

    Attributes:
        cobs: the board knows COBS.
        most: bytes of the longest message.
        window: bytes that may be on their way before the first of them is answered.
    """

    def __init__(self, port: Port, listen: Listener | None = None) -> None:
        self.port = port
        self.name = port.name
        self.cobs = False
        self.most = _CONSOLE_BYTES
        self.window = _CONSOLE_BYTES
        self.baud = BAUD
        self._listen = listen
        self._deframer = Deframer()
        self._messages: deque[bytes] = deque()
        self._controls: deque[Frame] = deque()

    @property
    def dropped(self) -> int:
        """Frames that came damaged."""
        return self._deframer.dropped

    def greet(self, tries: int = _HELLO_TRIES) -> bool:
        """Ask the board whether it knows COBS, and what it has room for; whether it does."""
        for _ in range(tries):
            answer = self._control(Kind.HELLO, bytes([_VERSION]), _HELLO_SECONDS)
            if answer is not None and len(answer) == _HELLO.size and answer[0] == _VERSION:
                _, self.most, self.window, self.baud = _HELLO.unpack(answer)
                self.cobs = True
                return True
        return False

    def change_baud(self, baud: int) -> bool:
        """Both sides go to another rate; where it does not work, both go back. Whether it works."""
        answer = self._control(Kind.BAUD, struct.pack("<I", baud), _HELLO_SECONDS) if self.cobs else None
        if answer != struct.pack("<I", baud):
            return False
        old, since = self.baud, time.monotonic()
        if self.port.set_baud(baud) and self.greet(tries=1) and self.baud == baud:
            return True
        self.port.set_baud(old)
        time.sleep(max(0.0, _TRIAL_SECONDS - (time.monotonic() - since)))
        self.greet()
        return False

    def send(self, message: bytes, deadline: Deadline) -> None:
        """Send a message.

        Raises:
            LinkLost: the port is gone, or takes nothing.
        """
        self.port.write(self.frame(message), deadline)

    def frame(self, message: bytes) -> bytes:
        """A message as it goes over the line."""
        return encode_cobs(Kind.MESSAGE, message) if self.cobs else encode_console(message)

    def receive(self, seconds: float) -> bytes | None:
        """The next message; None: none within ``seconds``.

        Raises:
            LinkLost: the port is gone.
        """
        end = time.monotonic() + seconds
        while not self._messages:
            left = end - time.monotonic()
            if left <= 0 and not self._read(0.0):
                return None
            if left > 0:
                self._read(left)
        return self._messages.popleft()

    def forget(self) -> None:
        """Answers that nobody waits for any more."""
        self._messages.clear()

    def close(self) -> None:
        self.port.close()

    def _read(self, seconds: float) -> bool:
        data = self.port.read(seconds)
        for frame in self._deframer.feed(data):
            if frame.kind is Kind.MESSAGE:
                self._messages.append(frame.payload)
            elif frame.kind is Kind.LOG:
                if self._listen is not None:
                    self._listen(frame.payload.decode(errors="replace"))
            else:
                self._controls.append(frame)
        return bool(data)

    def _control(self, kind: Kind, payload: bytes, seconds: float) -> bytes | None:
        """What the board answers to a frame of the line itself."""
        self._controls.clear()
        deadline = Deadline.after(seconds)
        self.port.write(encode_cobs(kind, payload), deadline)
        while deadline.remaining():
            self._read(deadline.remaining())
            for frame in self._controls:
                if frame.kind is kind:
                    return frame.payload
        return None


def open_line(address: str | Address, listen: Listener | None = None) -> Line:
    """Open a line and find out what the board at its other end knows. The rate is the address's, where that works.

    Raises:
        InputError: the address has another form.
        LinkError: the port cannot be opened.
    """
    place = parse(address) if isinstance(address, str) else address
    line = Line(open_port(place), listen)
    try:
        if not line.greet() and place.baud != BAUD and line.port.set_baud(BAUD) and line.greet():
            line.change_baud(place.baud)
    except BaseException:
        line.close()
        raise
    return line
