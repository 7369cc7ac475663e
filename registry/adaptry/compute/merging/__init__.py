"""Merging adapters into base weights: decide everything first, then stream once.

`recipe` is what the user wrote, `planning` decides (and fails) before a weight is read, `bake` carries the
plan out tensor by tensor in bounded memory, `record` says beside the result what went into it.
"""
