"""The only home of CUDA in the runtime."""
