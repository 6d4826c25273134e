"""Stands in the way of torch: what imports it here fails."""

raise ImportError("this science has no torch")
