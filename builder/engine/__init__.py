"""ONNX to a TensorRT engine, by TensorRT or by TensorRT-RTX."""
