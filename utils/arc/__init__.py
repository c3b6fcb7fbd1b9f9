"""Floor 1: ARC grids and tasks, in numpy alone."""
