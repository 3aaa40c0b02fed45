"""A result as one HTML page that needs nothing else: no network, no files beside it, no scripts by others."""
