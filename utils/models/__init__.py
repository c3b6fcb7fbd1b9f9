"""Floor 1: transformer blocks, the models made from them, and generation."""
