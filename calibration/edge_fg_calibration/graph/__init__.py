"""The ONNX graph: questions about it, patterns in it, and running it."""
