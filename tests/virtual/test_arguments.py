"""What QEMU is told, and settings that no board can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import InputError
from edgekit.virtual.qemu import arguments
from edgekit.virtual.settings import MIB, Settings


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_a_board_with_the_profiles_cores_and_memory() -> None:
    words = arguments(Settings.from_profile(), Path("/cache/kernel"), 2222)
    assert (option(words, "-cpu"), option(words, "-smp"), option(words, "-m")) == ("cortex-a72", "2", "512M")
    assert option(words, "-kernel") == "/cache/kernel"
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in option(words, "-netdev")
    assert "restrict=on" in option(words, "-netdev")
    assert "-icount" not in words


def test_instructions_are_counted_on_one_core() -> None:
    words = arguments(Settings.from_profile(icount=True, memory=1024 * MIB), Path("kernel"), 1)
    assert (option(words, "-smp"), option(words, "-icount"), option(words, "-m")) == ("1", "shift=0", "1024M")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": "Pi"}, "Pi"),
        ({"name": "../pi"}, "pi"),
        ({"name": ""}, "name"),
        ({"name": "-x"}, "-x"),
        ({"name": "a" * 64}, "aaa"),
        ({"cpus": 0}, "0"),
        ({"cpus": 9}, "9"),
        ({"icount": True}, "icount"),
        ({"memory": 64 * MIB}, "128"),
        ({"memory": 512 * MIB + 1}, "whole"),
        ({"disk": MIB}, "disk"),
        ({"port": 0}, "0"),
        ({"port": 65536}, "65536"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Settings(**wrong)
