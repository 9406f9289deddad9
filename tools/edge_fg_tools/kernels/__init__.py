"""Building the CUDA kernels, and their form for the CPU."""
