"""Merges adapters into base weights: plans everything first, then streams once.

The user writes a recipe. `plan` makes all decisions before weights are read, and fails then if it must.
`execute` runs the plan tensor by tensor in bounded memory. `record` documents the inputs next to the result.
"""
