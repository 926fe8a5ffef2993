"""A small SMP server on stdin and stdout that misbehaves on request: ``python peer.py MODE``."""

from __future__ import annotations

import os
import sys
import time

import cbor2
from smp.header import Header


def response(request: bytes, payload: object, sequence: int | None = None) -> bytes:
    """A success or error response to ``request``, bytes as docs/protocol.md has them."""
    body = cbor2.dumps(payload)
    number = request[6] if sequence is None else sequence
    return bytes([request[0] + 1, 0, len(body) >> 8, len(body) & 255, request[4], request[5], number, request[7]]) + body


def write(data: bytes, piece: int = 1 << 16) -> None:
    for start in range(0, len(data), piece):
        os.write(1, data[start : start + piece])


def serve(mode: str) -> None:
    while True:
        head = os.read(0, Header.SIZE)
        if not head:
            return
        length = head[2] << 8 | head[3]
        payload = cbor2.loads(os.read(0, length)) if length else {}
        answer = response(head, {"r": payload.get("d", "")})
        if mode == "bytewise":
            write(answer, 1)
        elif mode == "stale":
            write(response(head, {"r": "old"}, (head[6] - 1) % 256) + answer)
        elif mode == "noise":
            write(b"Welcome to Debian GNU/Linux\r\nlogin: ")
        elif mode == "no map":
            write(response(head, [1]))
        elif mode == "no cbor":
            write(response(head, {})[:-1] + b"\xff")
        elif mode == "other keys":
            write(response(head, {"q": 1}))
        elif mode == "newer":
            write(response(head, {"r": payload["d"], "colour": "red"}))
        elif mode == "busy":
            write(response(head, {"err": {"group": 64, "rc": 3}, "why": "a session runs"}))
        elif mode == "unknown status":
            write(response(head, {"err": {"group": 64, "rc": 999}, "why": "new"}))
        elif mode == "smp error":
            write(response(head, {"err": {"group": 0, "rc": 8}}))
        elif mode == "odd error":
            write(response(head, {"err": 5}))
        elif mode == "slow":
            time.sleep(0.5)
            write(answer)
        elif mode == "dies":
            print("assertion failed: x > 0", file=sys.stderr, flush=True)
            os.abort()
        elif mode != "silent":
            write(answer)


if __name__ == "__main__":
    serve(sys.argv[1])
