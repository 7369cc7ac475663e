"""Adapters into OCI registries."""
