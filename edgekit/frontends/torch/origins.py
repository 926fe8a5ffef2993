"""Where an exported node comes from: the user's module and line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch
from torch import fx

import edgekit
from edgekit.graph.graph import Origin
from edgekit.graph.model import ModuleInfo

WRAPPED = "model"  #: the attribute under which the exported wrapper holds the user's module
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TORCH = str(Path(torch.__file__).parent)
_EDGEKIT = str(Path(edgekit.__file__).parent)


def modules_of(node: fx.Node) -> list[ModuleInfo]:
    """The user's modules around a node, outermost first, the root left out."""
    stack: dict[str, tuple[str, str]] = node.meta.get("nn_module_stack") or {}
    found = []
    for path, kind in stack.values():
        name = path.removeprefix("L['self'].").split("@")[0]
        if name.startswith(f"{WRAPPED}."):
            class_name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            found.append(ModuleInfo(name.removeprefix(f"{WRAPPED}."), class_name.rsplit(".", 1)[-1]))
    return found


def origin_of(node: fx.Node) -> Origin:
    """The innermost module, and the innermost line that is not PyTorch's own."""
    modules = modules_of(node)
    frames = [(file, line) for file, line in _FRAME.findall(node.meta.get("stack_trace") or "") if not _own(file)]
    source = f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""
    return Origin(modules[-1].path if modules else "", source)


def where(node: fx.Node) -> str:
    """``module 'features.3' (Block), net.py:12``, for messages."""
    modules = modules_of(node)
    origin = origin_of(node)
    module = f"module {modules[-1].path!r} ({modules[-1].class_name})" if modules else "the model itself, or its loss"
    return f"{module}, {origin.source}" if origin.source else module


def user_frame(e: BaseException) -> str:
    """The innermost line of an exception's traceback that is not PyTorch's own or edgekit's; empty if none."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if not _own(f.filename)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _own(file: str) -> bool:
    return file.startswith((_TORCH, _EDGEKIT, "<"))
