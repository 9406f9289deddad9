"""The CUDA kernels: their source, which also compiles for the CPU, and what was built of it."""
