"""The Python interface: functions that start, resume, load and plan runs, and a run's results as data frames."""
