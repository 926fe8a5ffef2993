"""Instructions of a training step on an emulated Cortex-A72, beside PyTorch's: ``python -m benchmarks.instructions``."""
