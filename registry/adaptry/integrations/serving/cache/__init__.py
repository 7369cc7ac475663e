"""The cache of adapters on a machine that serves them."""
