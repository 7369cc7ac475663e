"""Computes a base's fingerprint from a checkpoint, and compares fingerprints.

`base_fingerprint` computes the record (cheaply: from headers and short reads), from facts (`architecture`),
samples (`sketch`) and the `tokenizer`. `full_hashes` reads all weights, as further evidence. `match` compares
two records, and recognises casts of the same weights (`dtype_cast`).
"""

from adaptry.bases.fingerprinting.base_fingerprint import fingerprint

__all__ = ["fingerprint"]
