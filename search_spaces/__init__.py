"""One file per table, figure or search, with a function `space(request)` that returns the complete `Space`."""
