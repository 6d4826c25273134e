"""Methods: a file each, with a function of the same name from a protocol to the method's own configuration."""
