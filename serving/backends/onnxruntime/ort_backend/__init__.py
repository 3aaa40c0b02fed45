"""What the ONNX Runtime backend of the embedded server is made of; ``model.py`` beside this folder puts it together.

These modules run inside Triton's Python stub, in the runtime's own environment: they import numpy and onnxruntime and
nothing of this project.
"""
