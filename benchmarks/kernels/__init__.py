"""The heavy CPU kernels alone: run one on arrays, time it, compare it with PyTorch."""
