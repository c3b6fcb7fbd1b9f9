"""Run All: the package behind the notebooks. Import what you need from its modules; this file imports nothing."""
