"""What Triton refuses in a ``ModelConfig``, and what makes it slow: judged of the message alone."""
