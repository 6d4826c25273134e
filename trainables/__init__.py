"""The training: configuration, recipe, samplers, data, networks and the training loop, in PyTorch."""
