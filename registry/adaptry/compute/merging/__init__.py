"""Merging adapters into base weights: decide everything first, then stream once.

A recipe is what the user wrote, `plan` decides (and fails) before a weight is read, `execute` carries the
plan out tensor by tensor in bounded memory, `record` says beside the result what went into it.
"""
