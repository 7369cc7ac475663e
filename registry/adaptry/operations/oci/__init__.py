"""Pushes adapters to OCI registries."""
