"""Maintenance of a stored registry: verifying, garbage collection, moving it."""
