"""What is kept, under names: states; and beside them plans, failures and starts, from which a run's status follows."""
