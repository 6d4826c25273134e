"""Backbones and heads of networks: a file each, with a class of the same name that carries its parameters."""
