"""The files that start a run on a cluster, as texts that are made from the user's choices."""
