"""An ONNX file as data: its tensors, its names, the files that hold its weights."""
