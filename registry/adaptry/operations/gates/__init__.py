"""Compares recorded decisions about aliases with a registry."""
