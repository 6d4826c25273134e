"""MLflow: runs, models and saved views of a run, and MLflow's own user interface on them."""
