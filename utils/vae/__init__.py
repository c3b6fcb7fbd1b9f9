"""Floor 3: a beta-VAE over ARC grids: corpus, model, objective, metrics."""
