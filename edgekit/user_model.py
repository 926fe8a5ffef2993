"""What a user names on the command line: a model in a file of theirs, an optimizer."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError

if TYPE_CHECKING:
    import torch

    from edgekit.compilation import Int8
    from edgekit.training.optimizers import SGD

    Batch = tuple[Any, Any]

CALIBRATION = 256

_FORM = 'a model is named "file.py:callable"; the callable takes nothing and returns (module, (inputs, targets))'


def load_model(name: str) -> tuple[torch.nn.Module, Batch]:
    """Call the ``callable`` of ``file.py:callable``.

    Raises:
        InputError: there is no such file or callable, it fails, or returns something else.
    """
    import torch

    file, colon, attribute = name.rpartition(":")
    if not colon or not file or not attribute:
        raise InputError(f"{name!r} names no model", _FORM)
    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no file {path}", _FORM)
    module = _run_user_code(path, lambda: _import(path))
    make = getattr(module, attribute, None)
    if not callable(make):
        raise InputError(f"{path} has no callable {attribute!r}", _FORM)
    result = _run_user_code(path, make)
    match result:
        case (torch.nn.Module() as model, (inputs, targets)):
            return model, (inputs, targets)
    raise InputError(f"{name} returns {_describe(result)}", _FORM)


def load_calibration(folder: Path, example: Batch, prefix_only: bool = False) -> Int8:
    """The inputs of a data set's folder to calibrate with, and its targets if it has any: at most ``CALIBRATION`` samples from
    all of it.

    Raises:
        InputError: a file is missing or no .npy.
    """
    import numpy as np
    import torch

    from edgekit.compilation import Int8

    def load(name: str) -> np.ndarray:
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as e:
            raise InputError(f"cannot calibrate with {path}: {e}", "give a folder with inputs.npy, as --data takes it") from e
        rows = np.linspace(0, len(array) - 1, min(len(array), CALIBRATION)).astype(int)
        return np.asarray(array[rows])

    count = len(example[0]) if isinstance(example[0], (tuple, list)) else 1
    names = ("inputs", *(f"inputs_{i}" for i in range(1, count)))
    inputs = tuple(torch.from_numpy(load(name).astype(np.float32)) for name in names)
    targets = torch.from_numpy(load("targets")) if (folder / "targets.npy").exists() else None
    return Int8(inputs, prefix_only=prefix_only, targets=targets)


def parse_optimizer(text: str) -> SGD:
    """``sgd:lr=0.01,momentum=0.9,weight_decay=1e-4,nesterov``.

    Raises:
        InputError: another optimizer, an unknown option, or a value that is no number or out of range.
    """
    from edgekit.training.optimizers import SGD

    form = 'write it as "sgd:lr=0.01,momentum=0.9,weight_decay=1e-4,nesterov"'
    kind, _, rest = text.partition(":")
    if kind != "sgd":
        raise InputError(f"there is no optimizer {kind!r}, only sgd", form)
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.strip().partition("=")
        if key == "nesterov" and value in ("", "true"):
            options[key] = True
        elif key in ("lr", "momentum", "weight_decay") and equals:
            options[key] = _number(key, value, form)
        else:
            raise InputError(f"{item!r} is no option of sgd", form)
    if "lr" not in options:
        raise InputError("sgd needs a learning rate", form)
    return SGD(**options)


def _number(key: str, value: str, form: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"{key}={value} is no number", form) from error


def _import(path: Path) -> Any:
    """Import a file as Python would run it: modules beside it can be imported."""
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file", _FORM)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _run_user_code(path: Path, call: Any) -> Any:
    """Call, and say where in the user's file it failed if it did."""
    try:
        return call()
    except InputError:
        raise
    except Exception as error:
        lines = [f"line {f.lineno}" for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.resolve()]
        if isinstance(error, SyntaxError) and error.lineno:
            lines.append(f"line {error.lineno}")
        where = f"{path}, {lines[-1]}" if lines else str(path)
        raise InputError(f"{where}: {type(error).__name__}: {error}", "the file fails before edgekit sees a model") from error


def _describe(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_describe(v) for v in value)})"
    return type(value).__name__
