"""Another version into a running server, while it answers."""
