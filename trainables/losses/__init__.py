"""Losses: one file each, with a class of the file's name that has the parameters, the head and the formula."""
