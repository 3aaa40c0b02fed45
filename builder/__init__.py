"""From a PyTorch module to a verified Triton model repository."""
