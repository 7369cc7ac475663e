"""Values and rules that know nothing of adapters, storage or the network."""
