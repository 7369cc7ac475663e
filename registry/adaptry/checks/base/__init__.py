"""Whether an adapter fits a base: the base has its modules, with matching shapes."""
