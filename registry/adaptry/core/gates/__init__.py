"""Conditions for moves of aliases. This file has what commands need without evaluating conditions."""

MAX_CONDITION = 1000
"""Characters of a condition."""
