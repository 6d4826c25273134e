"""Data sets: the declared facts of each, and the loading of images."""
