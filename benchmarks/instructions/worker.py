"""PyTorch on the board, in its two layouts of images; with how the wheel was built in place of its version."""

from __future__ import annotations

import torch

from benchmarks.peers.workers import torch_eager


class ChannelsLast(torch_eager.Peer):
    version = str(torch.__config__.show())


class Planar(ChannelsLast):
    layout = torch.contiguous_format
