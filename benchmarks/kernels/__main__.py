"""Times of single kernels next to PyTorch's: ``python -m benchmarks.kernels [--size 224] [--batch 8] [--threads 1]``.

Every distinct convolution of MobileNetV2-1.0 (or ResNet-18, ResNet-50), forward with bias and activation, input gradient with a
mask, and weight gradient with the bias's. PyTorch runs channels-last; its activation and mask are left out, in its favour.
Times are the best of several, by processor time: other processes' turns do not count. With several threads it is the longest
part of each round, without the waking of threads; PyTorch's cannot be timed so, and it is left out. ``!`` marks where PyTorch
is faster.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.kernels.driver import Bits, Case, Out, run

RELU6 = 2


@dataclass(frozen=True)
class Layer:
    """A convolution on an image of ``size`` × ``size``; 1 × 1 ones are what edgekit makes linear layers of."""

    channels: int
    outputs: int
    size: int
    kernel: int
    stride: int
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def flops(self, batch: int) -> int:
        return 2 * batch * self.out**2 * self.kernel**2 * self.channels // self.groups * self.outputs


def mobilenet(size: int) -> Iterator[Layer]:
    yield Layer(3, 32, size, 3, 2)
    size, channels = size // 2, 32
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, outputs, repeats, stride in blocks:
        for i in range(repeats):
            wide, step = channels * expand, stride if i == 0 else 1
            if expand > 1:
                yield Layer(channels, wide, size, 1, 1)
            yield Layer(wide, wide, size, 3, step, wide)
            size = (size + step - 1) // step
            yield Layer(wide, outputs, size, 1, 1)
            channels = outputs
    yield Layer(320, 1280, size, 1, 1)
    yield Layer(1280, 1000, 1, 1, 1)


def resnet(size: int) -> Iterator[Layer]:
    yield Layer(3, 64, size, 7, 2)
    size //= 4
    yield Layer(64, 64, size, 3, 1)
    for channels in (64, 128, 256):
        yield Layer(channels, 2 * channels, size, 3, 2)
        yield Layer(channels, 2 * channels, size, 1, 2)
        size = (size + 1) // 2
        yield Layer(2 * channels, 2 * channels, size, 3, 1)


def resnet_wide(size: int) -> Iterator[Layer]:
    """ResNet-50: 1 × 1 convolutions around each 3 × 3 one."""
    yield Layer(3, 64, size, 7, 2)
    size, channels = size // 4, 64
    for stage, repeats in enumerate((3, 4, 6, 3)):
        narrow = 64 << stage
        for i in range(repeats):
            stride = 2 if stage and i == 0 else 1
            yield Layer(channels, narrow, size, 1, 1)
            yield Layer(narrow, narrow, size, 3, stride)
            if i == 0:
                yield Layer(channels, 4 * narrow, size, 1, stride)
            size, channels = size // stride, 4 * narrow
            yield Layer(narrow, channels, size, 1, 1)


MODELS = {"mobilenet": mobilenet, "resnet": resnet, "resnet50": resnet_wide}


def cases(layer: Layer, batch: int, threads: int, repeats: int) -> list[Case]:
    """Forward, input gradient and weight gradient of a layer."""
    rng = np.random.default_rng(0)
    k, s, p, g = layer.kernel, layer.stride, layer.padding, layer.groups
    x_shape, y_shape = (batch, layer.size, layer.size, layer.channels), (batch, layer.out, layer.out, layer.outputs)
    x, dy = rng.random(x_shape, np.float32), rng.random(y_shape, np.float32)
    saved = Bits(rng.random(x_shape) > 0.4)
    bias = rng.random(layer.outputs, np.float32)
    y = (Out(y_shape), Out(y_shape, bits=True))
    if k == 1 and s == 1:
        w = rng.random((layer.channels, layer.outputs), np.float32)
        grads = (Out(w.shape), Out(bias.shape))
        return [
            Case(1, (x, w, bias, None), y, (RELU6,), threads=threads, repeats=repeats),
            Case(2, (dy, w, None, saved), (Out(x_shape),), (RELU6,), threads=threads, repeats=repeats),
            Case(3, (x, dy), grads, threads=threads, repeats=repeats),
        ]
    w = rng.random((k, k, layer.channels // g, layer.outputs), np.float32)
    window = (s, s, p, p, p, p, 1, 1, g)
    grads = (Out(w.shape), Out(bias.shape))
    return [
        Case(4, (x, w, bias, None), y, (*window, RELU6), threads=threads, repeats=repeats),
        Case(
            5, (dy, w, None, saved), (Out(x_shape),), (layer.size, layer.size, *window, RELU6), threads=threads, repeats=repeats
        ),
        Case(6, (x, dy), grads, (k, k, *window), threads=threads, repeats=repeats),
    ]


def best(work: Callable[[], object], repeats: int) -> int:
    """The shortest ns of processor time, as the driver takes it."""
    times = []
    for _ in range(repeats):
        start = time.thread_time_ns()
        work()
        times.append(time.thread_time_ns() - start)
    return min(times)


def peer(layer: Layer, batch: int, repeats: int) -> list[int]:
    """PyTorch's ns for the same three."""
    last = torch.channels_last
    x = torch.rand(batch, layer.channels, layer.size, layer.size).contiguous(memory_format=last)
    w = torch.rand(layer.outputs, layer.channels // layer.groups, layer.kernel, layer.kernel).contiguous(memory_format=last)
    bias = torch.rand(layer.outputs)
    dy = torch.rand(batch, layer.outputs, layer.out, layer.out).contiguous(memory_format=last)
    pair = [layer.stride] * 2, [layer.padding] * 2, [1, 1]

    def backward(*mask: bool) -> Callable[[], object]:
        arguments = (dy, x, w, [layer.outputs], *pair, False, [0, 0], layer.groups, list(mask))
        return lambda: torch.ops.aten.convolution_backward(*arguments)

    forward = best(lambda: torch.nn.functional.conv2d(x, w, bias, layer.stride, layer.padding, 1, layer.groups), repeats)
    return [forward, best(backward(True, False, False), repeats), best(backward(False, True, True), repeats)]


def title(layer: Layer, count: int) -> str:
    kind = "dw" if layer.groups > 1 else "  "
    return (
        f"{layer.channels:4}->{layer.outputs:<4} {layer.kernel}x{layer.kernel} s{layer.stride} @{layer.size:<3} {kind} x{count}"
    )


def native() -> str:
    """The widest vectors of this machine's processor that there are kernels for."""
    if platform.machine() in ("aarch64", "arm64"):
        return "neon"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "avx512" if "avx512vl" in flags else "avx2" if "avx2" in flags else "plain"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--model", choices=tuple(MODELS), default="mobilenet")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default=native(), help="instruction set (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--only", default="", help="layers whose line has this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    alone = options.no_peer or options.threads > 1
    layers = list(MODELS[options.model](options.size))
    ours, theirs = np.zeros(3), np.zeros(3)
    heads = ("forward: ms, GFLOP/s, PyTorch", "input gradient", "weight gradient", "scratch KiB")
    print(f"{'layer, times it occurs':30} | " + " | ".join(f"{head:26}" for head in heads))
    for layer in dict.fromkeys(layers):
        count = layers.count(layer)
        name = title(layer, count)
        if options.only not in name:
            continue
        answers = run(options.isa, cases(layer, options.batch, options.threads, options.repeats))
        other = [0, 0, 0] if alone else peer(layer, options.batch, options.repeats)
        ours += [count * a.ns for a in answers]
        theirs += [count * ns for ns in other]
        flops = layer.flops(options.batch)
        cells = [
            f"{a.ns / 1e6:8.3f} {flops / a.ns:6.1f} {ns / 1e6:8.3f}{' !' if 0 < ns < a.ns else '  '}"
            for a, ns in zip(answers, other, strict=True)
        ]
        print(f"{name:30} | " + " | ".join(cells) + f" | {max(a.scratch for a in answers) // 1024}", flush=True)
    total = [f"{a / 1e6:8.3f} {'':6} {b / 1e6:8.3f}  " for a, b in zip(ours, theirs, strict=True)]
    print(f"{'all':30} | " + " | ".join(total) + f" | {ours.sum() / 1e6:.1f} ms, PyTorch {theirs.sum() / 1e6:.1f} ms")


if __name__ == "__main__":
    main()
