"""Methods: one file each, with a function of the same name from the protocol's to the method's configuration."""
