"""Conditions for moves of aliases. This file has what commands need that evaluate none."""

MAX_CONDITION = 1000
"""Characters of a condition."""
