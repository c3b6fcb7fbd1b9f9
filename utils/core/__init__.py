"""Floor 0: configs, the run folder, reproducibility, devices, checks, plots, trackers, notebooks."""
