"""Two worlds of handwritten digits: the clean one a model was trained in, and the shifted one that its board sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

SIZE = 32  #: pixels a side; the originals are 8×8
ANGLE = 35.0  #: degrees that the board's camera is turned by
NOISE = 0.15  #: standard deviation of its sensor's noise, of a range of 1


@dataclass(frozen=True)
class Split:
    """Images f32[n, 1, SIZE, SIZE] in 0…1 and their classes i64[n]."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def arrays(self) -> dict[str, np.ndarray]:
        """The split as an edgekit data set."""
        return {"inputs": self.inputs.numpy(), "targets": self.targets.numpy()}


@dataclass(frozen=True)
class World:
    """What there is to train on, and what is kept back to measure with."""

    train: Split
    test: Split


def _shift(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A camera mounted at an angle, with an inverted and noisy sensor."""
    turn = torch.deg2rad(torch.tensor(ANGLE))
    matrix = torch.tensor([[turn.cos(), -turn.sin(), 0.0], [turn.sin(), turn.cos(), 0.0]])
    grid = functional.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    turned = functional.grid_sample(images, grid, align_corners=False)
    return 1.0 - turned + NOISE * torch.randn(images.shape, generator=generator)


def load() -> tuple[World, World]:
    """The clean world and the shifted one; no image is in two splits.

    Source: scikit-learn's copy of the UCI optical recognition of handwritten digits set (1797 images, no download).
    """
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None]
    images = functional.interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    targets = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    clean_train, clean_test, board_train, board_test = (Split(images[i], targets[i]) for i in order.split([800, 197, 400, 400]))
    shifted = World(
        Split(_shift(board_train.inputs, generator), board_train.targets),
        Split(_shift(board_test.inputs, generator), board_test.targets),
    )
    return World(clean_train, clean_test), shifted
