"""The registry on this machine: rows in a catalog, bytes in a blob store."""
