"""What a variant costs on a device: kernels, bytes, operations, and the time that they bound."""
