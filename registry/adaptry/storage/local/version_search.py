"""Searches for versions, as records or as JSON: found in the catalog, shown as the caller may see them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.query import Query, parse
from adaptry.registry.records import Page, VersionInfo
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.declared_bases import hidden_bases
from adaptry.storage.catalog.encoded_versions import EncodedVersion, encoded
from adaptry.storage.catalog.search import FoundVersions, SearchRequest, search
from adaptry.storage.catalog.version_info import by_keys
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.engine_fit import fits_test
from adaptry.storage.local.hidden_bases import hide_bases
from adaptry.storage.local.search_values import refuse_unknown_values


@dataclass(frozen=True, slots=True)
class _FoundKeys:
    """The keys of the versions that a search found, and the transaction in which they are shown."""

    tx: Reads
    scope: ReadScope
    page: FoundVersions


@dataclass(frozen=True, slots=True)
class VersionSearch:
    """A search on behalf of the context's identity."""

    context: RegistryContext
    query: str
    cursor: str | None
    limit: int
    sort: str
    reverse: bool

    def page(self) -> Page[VersionInfo]:
        """Implements `Versions.search`."""
        with self._find() as found:
            items = hide_bases(found.tx, found.scope, by_keys(found.tx, found.page.keys))
        return Page[VersionInfo](items=items, next=found.page.next)

    def json(self) -> bytes:
        """Implements `Versions.search_json`, from the cached JSON of each version."""
        with self._find() as found:
            items = self._encoded(found)
        return b'{"items":[%b],"next":%b}' % (b",".join(items), json.dumps(found.page.next).encode())

    @contextmanager
    def _find(self) -> Iterator[_FoundKeys]:
        cursors.check_limit(self.limit)
        context, now = self.context, self.context.clock()
        parsed = parse(self.query, now)
        request = SearchRequest(self.query, parsed, self.cursor, self.limit, self.sort, self.reverse)
        if parsed.reads_files:
            with context.catalog.read() as tx:
                scope = context.read_scope(tx)
                found = search(tx, scope, request, now, fits_test(context, tx, scope))
                yield self._checked(_FoundKeys(tx, scope, found), parsed)
            return
        with context.catalog.read_prepared(is_search=True) as reads:
            scope = context.read_scope(reads)
            yield self._checked(_FoundKeys(reads, scope, search(reads, scope, request, now)), parsed)

    def _checked(self, found: _FoundKeys, query: Query) -> _FoundKeys:
        """Returns `found`. If it is empty, raises `InvalidQuery` for values that do not exist."""
        if found.page.keys or found.page.next is not None or self.cursor is not None:
            return found

        def is_found(text: str) -> bool:
            now = self.context.clock()
            request = SearchRequest(text, parse(text, now), None, 1, "newest", False)
            page = search(found.tx, found.scope, request, now)
            return bool(page.keys) or page.next is not None

        refuse_unknown_values(query, is_found)
        return found

    def _encoded(self, found: _FoundKeys) -> list[bytes]:
        versions = self.context.catalog.encoded_versions.of(found.tx, found.page.keys)
        hidden = self._with_hidden_base(found, versions)
        if not hidden:
            return [version.json for version in versions]
        shown = hide_bases(found.tx, found.scope, by_keys(found.tx, hidden))
        replaced = dict(zip(hidden, map(encoded, shown), strict=True))
        return [replaced.get(version.key, version.json) for version in versions]

    def _with_hidden_base(self, found: _FoundKeys, versions: list[EncodedVersion]) -> list[int]:
        if found.scope.namespaces is None:
            return []
        bases = {version.base for version in versions if version.base is not None}
        hidden = hidden_bases(found.tx, found.scope, bases)
        return [version.key for version in versions if version.base in hidden]
