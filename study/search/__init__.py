"""Optuna: a study for each space of a run, what it is told and what it suggests."""
