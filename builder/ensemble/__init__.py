"""An ensemble as data: its steps wired, every edge checked, neighbouring ONNX steps fused, the whole run in process."""
