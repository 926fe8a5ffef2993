"""What dense 3×3 convolutions cost on a board, by algorithm: ``edgekit bench DEVICE --calibrate`` measures, the compiler reads.

A file ``<board>.costs.json`` beside the board's profile, in the user's own folder or among those that come with edgekit.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.board import GENERAL, Architecture, Board, board_folders
from edgekit.errors import InputError
from edgekit.files import storage_errors, write_atomic
from edgekit.graph.ops.conv import Algorithm

log = logging.getLogger("edgekit")

#: forward with weights that are constants, forward with trained weights, and the gradients
Kind = Literal["frozen", "forward", "input_grad", "weight_grad"]
KINDS: tuple[Kind, ...] = ("frozen", "forward", "input_grad", "weight_grad")
Speed = tuple[float, float]  #: GFLOP/s of the definition's FLOPs, as a matrix product and by Winograd's algorithm


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Layer(_Strict):
    """A convolution's shape, and its speeds: ``results`` is images × height × width."""

    results: int = Field(gt=0)
    inputs: int = Field(gt=0)
    outputs: int = Field(gt=0)
    frozen: Speed
    forward: Speed
    input_grad: Speed
    weight_grad: Speed

    def faster(self, kind: Kind) -> Algorithm:
        """The algorithm of the higher speed."""
        product, winograd = getattr(self, kind)
        return Algorithm.WINOGRAD if winograd > product else Algorithm.PRODUCT


class Costs(_Strict):
    """One board's table, and where it comes from.

    Attributes:
        board: the profile's id.
        machine: what it was measured on, as people call it.
        isa: the kernels' instruction set, ``threads`` the runner's.
        edgekit: the version that measured.
    """

    board: str
    architecture: Architecture
    machine: str
    isa: str
    threads: int
    edgekit: str
    date: date
    layers: tuple[Layer, ...] = Field(min_length=1)

    def faster(self, kind: Kind, results: int, inputs: int, outputs: int) -> Algorithm:
        """The algorithm that was the faster one for the most similar shape measured: the least sum of squared log ratios."""

        def distance(layer: Layer) -> float:
            pairs = ((layer.results, results), (layer.inputs, inputs), (layer.outputs, outputs))
            return sum(math.log(a / b) ** 2 for a, b in pairs)

        return min(self.layers, key=distance).faster(kind)

    def facts(self) -> dict[str, Any]:
        """Where the table comes from, for reports."""
        return self.model_dump(mode="json", exclude={"layers"})

    def save(self) -> Path:
        """Write the table among the user's own; the file that it is in now.

        Raises:
            StorageError: that folder cannot be written.
        """
        path = board_folders()[1] / _name(self.board)
        with storage_errors(f"cannot make {path.parent}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, self.text().encode())
        return path

    def text(self) -> str:
        """The file's: a line for each layer."""
        facts = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in self.facts().items())
        rows = ",\n".join(f"  {json.dumps(layer.model_dump())}" for layer in self.layers)
        return f'{{\n{facts} "layers": [\n{rows}\n ]\n}}\n'


def load_costs(board: Board) -> Costs | None:
    """A board's table, else its architecture's general board's; the user's own before the one that comes with edgekit.

    None: there is none.

    Raises:
        InputError: a file is no valid table, or of another architecture.
    """
    path = next((p for p in _places(board) if p.exists()), None)
    if path is None:
        return None
    remedy = f"`edgekit bench DEVICE --calibrate` on such a board makes it anew, or remove {path}"
    try:
        costs = Costs.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()[:3])
        raise InputError(f"{path} is no valid table of costs: {faults}", remedy) from error
    if costs.architecture != board.architecture:
        raise InputError(f"{path} was measured on {costs.architecture}; {board.id} is {board.architecture}", remedy)
    if costs.edgekit != version() and path.parent == board_folders()[1]:
        log.info("the costs in %s were measured with edgekit %s, this is %s; %s", path, costs.edgekit, version(), remedy)
    return costs


def version() -> str:
    """This edgekit's, as tables have it."""
    return metadata.version("edgekit")


def _places(board: Board) -> Iterator[Path]:
    shipped, own = board_folders()
    for identity in (board.id, GENERAL[board.architecture]):
        yield own / _name(identity)
        yield shipped / _name(identity)


def _name(board: str) -> str:
    return f"{board}.costs.json"
