"""A start of a run: the driver, Ray Tune as the executor of stages, and the threads that records follow in."""
