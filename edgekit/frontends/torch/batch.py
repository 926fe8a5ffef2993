"""Example batches of another size."""

from __future__ import annotations

from typing import Any

import torch


def resize_batch(example: tuple[Any, Any], samples: int) -> tuple[Any, Any]:
    """An example batch of ``samples`` samples: cut, or repeated."""

    def resize(value: Any) -> Any:
        if value is None:  # a loss without targets
            return None
        if isinstance(value, (tuple, list)):
            return tuple(resize(v) for v in value)
        return value[torch.arange(samples) % len(value)]

    return resize(example[0]), resize(example[1])
