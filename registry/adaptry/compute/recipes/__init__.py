"""Recipes of merges and combinations, as values that jobs carry too."""
