"""Adds results files to versions as evidence, and reads stored ones."""
