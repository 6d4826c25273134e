"""Losses: a file each, with a class of the same name that carries its parameters, its head and its formula."""
