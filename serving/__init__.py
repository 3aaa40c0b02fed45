"""A real Triton: start it, wait for it, talk to it, stop it."""
