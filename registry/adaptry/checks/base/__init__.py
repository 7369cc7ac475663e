"""Whether an adapter fits a base: its modules are there, in the shapes of the base."""
