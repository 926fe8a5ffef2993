"""Frames: both forms, what is damaged, what comes in pieces, and the log between them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from edgekit.links.serial.framing import Deframer, Frame, Kind, encode_cobs, encode_console

messages = st.binary(min_size=8, max_size=700)


@given(st.lists(st.tuples(messages, st.booleans()), max_size=4), st.randoms())
def test_frames_come_out_as_they_went_in_however_they_are_cut(rows: list[tuple[bytes, bool]], chance: random.Random) -> None:
    wire = b"".join(encode_cobs(Kind.MESSAGE, m) if cobs else encode_console(m) for m, cobs in rows)
    deframer, out, at = Deframer(), [], 0
    while at < len(wire):
        size = chance.randint(1, 90)
        out += deframer.feed(wire[at : at + size])
        at += size
    assert [frame.payload for frame in out] == [m for m, _ in rows]
    assert deframer.dropped == 0


@given(messages, st.integers(0), st.integers(0, 7))
def test_a_changed_frame_is_never_taken_and_the_next_one_is(message: bytes, place: int, bit: int) -> None:
    for encode in (encode_console, lambda m: encode_cobs(Kind.MESSAGE, m)):
        wire = bytearray(encode(message))
        wire[place % len(wire)] ^= 1 << bit
        deframer = Deframer()
        wire_bytes = bytes(wire) + encode(b"next one") + encode(b"and next")
        found = [f.payload for f in deframer.feed(wire_bytes) if f.kind is Kind.MESSAGE]
        wanted = [f for f in found if f not in (b"next one", b"and next")]
        assert wanted in ([], [message])  # a flip in what surrounds the frame may leave it whole
        assert found[-1] == b"and next"


def test_lines_between_frames_are_the_log() -> None:
    deframer = Deframer()
    wire = b"starting\r\n" + encode_console(b"12345678") + b"half a li" + encode_cobs(Kind.LOG, b"whole") + b"\0" + b"later\n"
    frames = list(deframer.feed(wire[:5])) + list(deframer.feed(wire[5:]))
    assert frames[:3] == [Frame(Kind.LOG, b"starting"), Frame(Kind.MESSAGE, b"12345678"), Frame(Kind.LOG, b"whole")]


def test_noise_without_end_is_given_up() -> None:
    deframer = Deframer()
    assert list(deframer.feed(b"\0" + b"x" * 200_000)) == []
    assert deframer.dropped == 1
    assert [f.payload for f in deframer.feed(encode_cobs(Kind.MESSAGE, b"message!"))] == [b"message!"]
