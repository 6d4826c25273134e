"""Backbones and heads of networks: one file each, with a class of the file's name that has the parameters."""
