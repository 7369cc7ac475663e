"""Public names of before."""
