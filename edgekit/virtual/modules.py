"""Kernel modules in the order in which they have to be loaded: after those that they depend on."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from edgekit.virtual.errors import VirtualBoardError

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")  # in the section .modinfo, strings with a zero byte around each


def module_name(path: str) -> str:
    """``virtio_blk`` for ``…/virtio-blk.ko.xz``, as the kernel calls it."""
    return PurePosixPath(path).name.split(".ko")[0].replace("-", "_")


def plain_module(path: str, data: bytes) -> bytes:
    """A module as the kernel loads it."""
    return lzma.decompress(data) if path.endswith(".xz") else data


def load_order(names: Iterable[str], modules: Mapping[str, bytes], builtin: Iterable[str]) -> list[str]:
    """``names`` and all that they depend on, each once, dependencies first.

    ``modules`` are the plain modules by name; what is ``builtin`` needs no loading.

    Raises:
        VirtualBoardError: the kernel has neither the module nor its code built in.
    """
    inside = set(builtin)
    order: list[str] = []

    def visit(name: str) -> None:
        if name in inside or name in order:
            return
        if name not in modules:
            raise VirtualBoardError(f"the kernel package has no module {name}", "try `edgekit virtual start --update`")
        for dependency in _dependencies(modules[name]):
            visit(dependency)
        order.append(name)

    for name in names:
        visit(name)
    return order


def _dependencies(module: bytes) -> list[str]:
    found = _DEPENDS.search(module)
    return [name.decode().replace("-", "_") for name in found[1].split(b",") if name] if found else []
