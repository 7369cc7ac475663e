"""Values and rules that do not depend on adapters, storage or the network."""
