"""Aliases of modules of `adaptry.compute.merging`: the names that users' programs import."""
