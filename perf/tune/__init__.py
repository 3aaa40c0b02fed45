"""Finding the configuration of a model that serves it best on this machine: ``tune-repo``."""
