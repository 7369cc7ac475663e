"""Bundles: versions in one file, for machines without a network. `index` lists the contents, `archive` is the
file format, `writer` creates a bundle from a registry and `reader` loads one into another."""
