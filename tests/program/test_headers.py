"""The generated C headers are what the Python definitions say now."""

from __future__ import annotations

import pytest

from edgekit.graph.ops import OPS
from edgekit.program.attributes import WORDS, pack, unpack
from edgekit.program.cgen import CORE, HEADERS


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_current(name: str) -> None:
    assert (CORE / name).read_text() == HEADERS[name](), "run `python -m edgekit.program.cgen`"


@pytest.mark.parametrize("code", sorted(OPS))
def test_attributes_come_back(code: int) -> None:
    op = OPS[code]()
    again = unpack(OPS[code], pack(op))
    assert pack(again) == pack(op)
    assert len(pack(op)) == 4 * WORDS
