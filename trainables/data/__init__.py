"""Data sets: what is declared of each, and how images come to the network."""
