"""Floor 2 (tier 3): the training loop, its objectives, and recipes."""
