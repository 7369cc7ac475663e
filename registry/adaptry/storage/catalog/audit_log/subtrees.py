"""Hashes of parts of the log's tree, for proofs: from stored hashes of large parts, else from leaves."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col, select

from adaptry.core.errors import CorruptData
from adaptry.core.transparency.merkle import node_hash, root_of, split
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AuditEntryRow, AuditSubtreeRow

_LEVELS = (8, 16)  # stored hashes are over 2^level leaves


def store_subtrees(tx: Transaction, size: int, completed: Sequence[bytes]) -> None:
    """Stores the hashes of large parts among those that the last of `size` leaves has completed."""
    for level in _LEVELS:
        if len(completed) > level:
            number = (size >> level) - 1
            tx.add(AuditSubtreeRow(level=level, number=number, hash=completed[level].hex()))


def subtree(tx: Transaction, start: int, end: int) -> bytes:
    """The hash over the leaves from `start` to `end`, for the ranges that proofs have. Raises `CorruptData`
    where a leaf is missing.
    """
    width = end - start
    if width & (width - 1) or start % width:
        middle = split(start, end)
        return node_hash(subtree(tx, start, middle), subtree(tx, middle, end))
    level = max((level for level in _LEVELS if width >> level), default=0)
    hashes = _stored(tx, level, start >> level, end >> level) if level else _leaves(tx, start, end)
    if len(hashes) != width >> level:
        raise CorruptData(
            f"the audit log lacks a part of entries {start} to {end - 1}; run adaptry audit verify"
        )
    return root_of(hashes)


def _leaves(tx: Transaction, start: int, end: int) -> list[bytes]:
    seq = col(AuditEntryRow.seq)
    query = select(AuditEntryRow.leaf).where(seq >= start, seq < end).order_by(seq)
    return [bytes.fromhex(leaf or "") for leaf in tx.exec(query)]


def _stored(tx: Transaction, level: int, start: int, end: int) -> list[bytes]:
    number = col(AuditSubtreeRow.number)
    query = select(AuditSubtreeRow.hash).where(AuditSubtreeRow.level == level, number >= start, number < end)
    return [bytes.fromhex(text) for text in tx.exec(query.order_by(number))]
