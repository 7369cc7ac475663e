"""Merkle trees as RFC 6962 defines them: hashes, roots, and proofs of inclusion and consistency.

A tree is defined by the hashes of its leaves, in order. `Peaks` appends leaves without reading the earlier
ones again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

Subtree = Callable[[int, int], bytes]
"""The hash of the leaves from the first number up to, not including, the second."""


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Peaks:
    """The roots of the complete subtrees that a tree of `size` leaves consists of, the largest first."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.hashes: list[bytes] = list(hashes)
        assert len(self.hashes) == size.bit_count()

    def append(self, leaf: bytes) -> list[bytes]:
        """The hashes of the complete subtrees whose last leaf this is: subtrees of 1, 2, 4… leaves."""
        completed = [leaf]
        while self.size >> (len(completed) - 1) & 1:
            completed.append(node_hash(self.hashes.pop(), completed[-1]))
        self.hashes.append(completed[-1])
        self.size += 1
        return completed

    @property
    def root(self) -> bytes:
        if not self.hashes:
            return hashlib.sha256(b"").digest()
        root = self.hashes[-1]
        for peak in reversed(self.hashes[:-1]):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    peaks = Peaks()
    for leaf in leaves:
        peaks.append(leaf)
    return peaks.root


def split(start: int, end: int) -> int:
    """The position at which the tree over the leaves from `start` to `end` is split in two (RFC 6962,
    2.1)."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root of the first `size` leaves."""
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = split(start, end)
        if index < middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, size: int, subtree: Subtree) -> list[bytes]:
    """The hashes that show that a tree of `size` leaves begins with that of `old` leaves, 0 < old <= size."""
    proof: list[bytes] = []
    start, end = 0, size
    while old != end:
        middle = split(start, end)
        if old <= middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start = middle
    if start:  # otherwise the verifier has the old root
        proof.append(subtree(start, end))
    return proof[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root to which the proof leads (RFC 9162, 2.1.3.2); None for a proof of the wrong length."""
    if not 0 <= index < size:
        return None
    position, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    return found if last == 0 else None


def is_consistent(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree with `root` begins with the tree with `old_root` (RFC 9162,
    2.1.4.2).
    """
    if old == size:
        return old_root == root and not proof
    if not 0 < old < size:
        return old == 0 and not proof
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    position, last = old - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and before == old_root and after == root
