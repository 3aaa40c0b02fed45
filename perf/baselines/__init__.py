"""The same model without a server beside ours: raw onnxruntime, eager PyTorch, FastAPI with onnxruntime."""
