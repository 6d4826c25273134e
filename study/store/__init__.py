"""The store: states under names, and beside them plans, failures and starts, from which a run's status follows."""
