"""One start of a run: the driver, Ray Tune as executor of the stages, and the threads that write the records."""
