"""The CPU backend: kernels on vector extensions for AVX-512, AVX2, NEON and plain C; its record is in capability.py."""
