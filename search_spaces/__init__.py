"""One readable file per table, figure or search: a function `space(request)` that returns the complete `Space`."""
