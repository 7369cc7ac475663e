"""Versions in one file, for where no network goes: `index` says what is in it, `archive` is its bytes, `packing` writes one from a
registry and `loading` puts one down in another."""
