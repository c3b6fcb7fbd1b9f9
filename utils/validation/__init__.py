"""Tiers 1 and 2: is this model sound? Each check is a function of an adapter that leaves the model as it found it."""
