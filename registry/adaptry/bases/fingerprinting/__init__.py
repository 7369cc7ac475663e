"""A base's fingerprint, made from a checkpoint and compared with others.

`identify` makes the record (cheap: headers and short reads), from facts (`architecture`), samples (`sketching`) and
the `tokenizer`; `hashing` reads everything, for evidence; `matching` says how alike two records are, casts of the
same weights (`casting`) included.
"""

from adaptry.bases.fingerprinting.base_fingerprint import fingerprint

__all__ = ["fingerprint"]
