"""The audit log in the catalog: entries recorded with each change, sealed into a Merkle tree, and read."""
