"""Versions from one registry in another, with all that belongs to them, and kept up to date.

`parcels` is what travels with a version, `delivering` puts it down; `planning` compares two registries and `following` carries
the plan out; `bundles` is the same through a file.
"""
