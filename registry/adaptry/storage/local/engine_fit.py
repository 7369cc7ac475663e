"""Whether engines serve versions as they were trained: the test of a search's `fits:` terms.

A verdict is computed from a version's files and its base, and never stored with it, since the rules change.
Files and rules do not change during the process's lifetime, so verdicts are cached in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Invalid, InvalidQuery
from adaptry.core.query_terms import FitsTerm
from adaptry.storage.catalog import bases, declared_bases, versions
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import VersionRow
from adaptry.storage.local.blob_content import BlobContent
from adaptry.storage.local.context import RegistryContext

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.checks.runtimes import Runtime

_MAX_CACHED = 50_000
_Key = tuple[str, str | None, str]


class _Verdicts:
    """A cache of verdicts by revision, base and runtime."""

    def __init__(self) -> None:
        self._lock, self._kept = Lock(), dict[_Key, bool]()

    def get(self, key: _Key) -> bool | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: _Key, fits: bool) -> None:
        with self._lock:
            if len(self._kept) >= _MAX_CACHED:
                self._kept.clear()
            self._kept[key] = fits


_VERDICTS = _Verdicts()


def fits_test(
    context: RegistryContext, tx: Transaction, scope: ReadScope
) -> Callable[[Sequence[tuple[FitsTerm, bool]]], Callable[[int], bool]]:
    """A test of versions for `fits:` terms, each with a flag that negates it. A version whose files cannot be
    read has no verdict, so it is found in neither case. Raises `InvalidQuery` for an unknown engine.
    """
    known_bases: dict[str, BaseRecord | None] = {}

    def base_of(id: str | None) -> BaseRecord | None:
        """The base's record, if the reader may see it."""
        if id is not None and id not in known_bases:
            hidden = declared_bases.hidden_bases(tx, scope, [id])
            known_bases[id] = None if hidden else bases.record(tx, Digest(id))
        return known_bases[id] if id is not None else None

    def test_of(terms: Sequence[tuple[FitsTerm, bool]]) -> Callable[[int], bool]:
        requirements = [(_runtime(term), not is_excluded) for term, is_excluded in terms]

        def test(key: int) -> bool:
            row = tx.get_one(VersionRow, key)
            base = base_of(row.base_id)
            return all(_verdict(context, tx, row, base, runtime) is fits for runtime, fits in requirements)

        return test

    return test_of


def _runtime(term: FitsTerm) -> Runtime:
    from adaptry.checks.runtimes import parse_runtime  # imports all rules; other searches need none

    try:
        return parse_runtime(term.runtime)
    except Invalid as error:
        raise InvalidQuery(f"{f'fits:{term.runtime}'[:80]!r}: {error.message}") from None


def _verdict(
    context: RegistryContext, tx: Transaction, row: VersionRow, base: BaseRecord | None, runtime: Runtime
) -> bool | None:
    """Whether the runtime serves the version as trained; None if that cannot be computed."""
    from adaptry.adapters.adapter import open_content
    from adaptry.checks.runtimes import check_runtime

    key = row.digest, row.base_id if base else None, str(runtime)
    known = _VERDICTS.get(key)
    if known is not None:
        return known
    try:
        adapter = open_content(BlobContent(context.blobs, versions.manifest(tx, Digest(row.digest))))
        fits = check_runtime(adapter, runtime, base).outcome == "as_trained"
    except AdaptryError:
        return None
    _VERDICTS.put(key, fits)
    return fits
