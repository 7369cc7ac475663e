"""Keeping a stored registry in order: verify, collect garbage, move."""
