"""Adapters: their files, header, config, layouts and methods."""
