"""The store: states by name, and the plans, failures and starts from which a run's status follows."""
