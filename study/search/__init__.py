"""Optuna: one study for each space of a run, its results and its suggestions."""
