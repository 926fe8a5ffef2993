"""What to update: from the user's words, globs or file to parameter names and fractions (``docs/update-schemes.md``)."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.graph.model import Model
from edgekit.training.blocks import Structure, structure_of
from edgekit.training.presets import PRESETS

Update = str | Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What is trained.

    Attributes:
        fractions: by parameter name, in the model's order: 1.0 whole, less for that share of a weight's leading input channels.
        notes: what the user should know about how the words were understood.
        spec: the update as given, for reports.
    """

    fractions: dict[str, float]
    notes: tuple[str, ...]
    spec: str


def choose(model: Model, update: Update) -> Choice:
    """Resolve an update: ``full``, ``head``, ``bias:N``, ``last:N``, a preset's name, a TOML file, or a mapping of globs.

    Raises:
        InputError: an unknown word or file, a glob that matches nothing, a number out of range, or nothing to train.
    """
    if isinstance(update, Mapping):
        fractions, notes = _globs(model, update)
        spec = ", ".join(f"{glob}={fraction:g}" for glob, fraction in update.items())
    elif isinstance(update, str):
        fractions, notes = _resolve(model, update.strip())
        spec = update.strip()
    else:
        raise InputError(f"the update is a {type(update).__name__}", "give a word such as 'last:6', or a mapping of globs")
    if not fractions:
        raise InputError(f"the update {spec!r} trains nothing", "name parameters of the model, or use 'full'")
    return Choice({name: fractions[name] for name in model.parameters if name in fractions}, tuple(notes), spec)


def _resolve(model: Model, spec: str) -> tuple[dict[str, float], list[str]]:
    if spec.endswith(".toml"):
        return _file(model, Path(spec))
    structure = structure_of(model)
    word, _, number = spec.partition(":")
    if spec == "full":
        return dict.fromkeys((n for n in model.parameters if n not in structure.norm_scales), 1.0), _scale_notes(structure)
    if spec == "head":
        return _head(structure), []
    if word in ("bias", "last") and number:
        words = {"bias": _bias, "last": _last}
        return words[word](structure, _count(spec, number)), _scale_notes(structure)
    if spec in PRESETS:
        preset = PRESETS[spec]
        return _head(structure) | preset.fractions(spec, structure), [*preset.notes, *_scale_notes(structure)]
    known = ["full", "head", "bias:N", "last:N", *PRESETS]
    near = difflib.get_close_matches(spec, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(known)}, or a .toml file"
    raise InputError(f"unknown update {spec!r}", hint)


def _count(spec: str, number: str) -> int:
    if not number.isdecimal() or int(number) < 1:
        raise InputError(f"the update {spec!r} counts {number!r}", "give a whole number of at least 1, as in 'last:6'")
    return int(number)


def _head(structure: Structure) -> dict[str, float]:
    return {name: 1.0 for layer in structure.head for name in layer.trained}


def _bias(structure: Structure, count: int) -> dict[str, float]:
    """The biases of the last layers that have one."""
    biased = [layer for layer in structure.layers if layer.biases]
    if count > len(biased):
        raise InputError(f"bias:{count}: the model has {len(biased)} layers with a bias", f"use bias:{len(biased)} or less")
    return {name: 1.0 for layer in biased[-count:] for name in layer.biases}


def _last(structure: Structure, count: int) -> dict[str, float]:
    """The last blocks, and the head."""
    blocks = structure.blocks
    if count > len(blocks):
        raise InputError(f"last:{count}: the model has {len(blocks)} blocks", f"use last:{len(blocks)} or less, or full")
    names = (name for block in blocks[-count:] for name in block.parameters if name not in structure.norm_scales)
    return dict.fromkeys(names, 1.0) | _head(structure)


def _scale_notes(structure: Structure) -> list[str]:
    if not structure.norm_scales:
        return []
    count = len(structure.norm_scales)
    return [
        f"weights and biases are updated, BatchNorm's biases included; its scales ({count} of them) stay frozen: "
        "name them by a glob to train them"
    ]


def _file(model: Model, path: Path) -> tuple[dict[str, float], list[str]]:
    """A TOML file: a table ``update`` of globs and fractions, and optionally ``base``, a word or preset that it adds to."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"cannot read the update scheme {path}: {e}", "give the path of a TOML file") from e
    except tomllib.TOMLDecodeError as e:
        raise InputError(f"{path} is no TOML: {e}", 'write globs in quotes: "features.1*.weight" = 1.0') from e
    unknown = sorted(set(data) - {"base", "update"})
    table, base = data.get("update", {}), data.get("base")
    if unknown or not isinstance(table, dict) or not isinstance(base, str | None) or not (table or base):
        what = f"an unknown key {unknown[0]!r}" if unknown else "neither a table [update] nor a base"
        raise InputError(f"{path} has {what}", 'it holds base = "bias:20" (optional) and a table [update] of "glob" = fraction')
    fractions, notes = ({}, []) if base is None else _resolve(model, base)
    more, more_notes = _globs(model, table) if table else ({}, [])
    return fractions | more, [*notes, *more_notes]


def _globs(model: Model, update: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Every parameter's fraction by the last glob that matches it."""
    found: dict[str, float] = {}
    vectors: list[str] = []
    for glob, fraction in update.items():
        if (
            not isinstance(fraction, (int, float))
            or isinstance(fraction, bool)
            or not math.isfinite(fraction)
            or not 0 < fraction <= 1
        ):
            raise InputError(f"the fraction of {glob!r} is {fraction!r}", "give more than 0 and at most 1; leave out the frozen")
        names = [name for name in model.parameters if fnmatchcase(name, glob)]
        if not names:
            raise _unmatched(model, glob)
        found.update(dict.fromkeys(names, float(fraction)))
        vectors += [name for name in names if fraction < 1 and model.parameters[name].in_axis is None]
    whole = [name for name in found if model.parameters[name].in_axis is None]
    found.update(dict.fromkeys(whole, 1.0))
    if not vectors:
        return found, []
    return found, [f"{len(vectors)} arrays without input channels (biases, norms) are updated whole: {vectors[0]}, …"]


def _unmatched(model: Model, glob: str) -> InputError:
    if any(fnmatchcase(name, glob) for name in model.unused):
        return InputError(f"{glob!r} names parameters that the loss does not depend on", "leave it out")
    near = difflib.get_close_matches(glob, model.parameters, 3, 0.4)
    known = near or list(model.parameters)[:3]
    return InputError(
        f"no parameter matches {glob!r}", f"names look like {', '.join(known)}; * matches any characters, dots included"
    )
