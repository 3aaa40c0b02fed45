"""ONNX to ONNX at another precision: what ONNX Runtime and TensorRT both run."""
