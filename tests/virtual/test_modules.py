"""The order in which kernel modules are loaded."""

from __future__ import annotations

import lzma

import pytest

from edgekit.virtual.errors import VirtualBoardError
from edgekit.virtual.modules import load_order, module_name, plain_module


def module(*depends: str) -> bytes:
    return b"code\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=x\0"


def test_dependencies_come_first_and_once() -> None:
    modules = {
        "ring": module(),
        "bus": module("ring"),
        "net": module("bus", "fail-over"),
        "fail_over": module(),
        "blk": module("bus"),
    }
    assert load_order(["net", "blk"], modules, []) == ["ring", "bus", "fail_over", "net", "blk"]


def test_what_is_built_in_is_not_loaded() -> None:
    assert load_order(["ext4", "net"], {"net": module("bus")}, ["ext4", "bus"]) == ["net"]


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(VirtualBoardError, match="no module bus"):
        load_order(["net"], {"net": module("bus")}, [])


def test_names_and_compression() -> None:
    assert module_name("usr/lib/modules/6/kernel/virtio-blk.ko.xz") == module_name("virtio_blk.ko") == "virtio_blk"
    assert plain_module("a.ko.xz", lzma.compress(b"code")) == plain_module("a.ko", b"code") == b"code"
