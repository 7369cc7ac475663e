"""A base's fingerprint, made from a checkpoint and compared with others.

`base_fingerprint` makes the record (cheap: headers and short reads), from facts (`architecture`), samples
(`sketch`) and the `tokenizer`; `hashing` reads everything, for evidence; `match` says how alike two records
are, casts of the same weights (`dtype_cast`) included.
"""

from adaptry.bases.fingerprinting.base_fingerprint import fingerprint

__all__ = ["fingerprint"]
