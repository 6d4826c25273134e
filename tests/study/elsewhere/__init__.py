"""A science that the platform has never heard of, as a package of somebody else's."""
