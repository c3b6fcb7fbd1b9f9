"""Experiments over several runs: sweeps, searches, comparisons. How one run is made is passed in."""
