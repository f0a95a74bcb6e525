"""Training: configuration, loop, losses, run folder."""
