"""Recipes of merges and combinations, as values; jobs carry them too."""
