"""The part of a local registry about versions: what a ref means, listings, search, reading files."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.digest import Digest
from adaptry.core.errors import FileMissing, Invalid, RevisionNotFound
from adaptry.core.lifecycle import may_read_files
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.records import Page, VersionDetail, VersionInfo
from adaptry.registry.state_warnings import withdrawn_error
from adaptry.storage.catalog import adapters, commits, cursors, damage, states, versions
from adaptry.storage.catalog.damage import DamageSummary
from adaptry.storage.catalog.search import search
from adaptry.storage.catalog.version_info import info
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.hidden_bases import hide_base_in_detail, hide_bases


class LocalVersions(RegistryContext):
    """`version` to `count_download`, `tree` and `read_file`."""

    def version(self, ref: Ref) -> VersionInfo:
        with self.catalog.read() as tx:
            return self.hide_base(tx, info(tx, self.resolve(tx, ref)))

    def detail(self, ref: Ref) -> VersionDetail:
        with self.catalog.read() as tx:
            detail = versions.detail(tx, to_record(self.resolve(tx, ref)))
            return hide_base_in_detail(tx, self.read_scope(tx), detail)

    def versions(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            page = versions.page(tx, self.readable_adapter(tx, name), cursor, limit)
            return page.model_copy(update={"items": hide_bases(tx, self.read_scope(tx), page.items)})

    def search(self, query: str, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            scope = self.read_scope(tx)
            page = search(tx, scope, query, cursor, limit)
            return page.model_copy(update={"items": hide_bases(tx, scope, page.items)})

    def known_damage(self) -> DamageSummary:
        """How much `verify` found to be damaged, and nobody has mended since; for whoever works in the
        registry's folder.
        """
        with self.catalog.read() as tx:
            return damage.summarise_damage(tx)

    def count_download(self, ref: Ref) -> None:
        with self.catalog.write_nondurable() as tx:
            adapter = self.readable_adapter(tx, ref.name)
            versions.count_download(tx, to_record(self.resolve(tx, ref)))
            adapters.count_download(tx, adapter)

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        with self.catalog.read() as tx:
            adapter = self.readable_adapter(tx, name)
            tree = commits.tree(tx, adapter, revision)
        if tree is None:
            raise RevisionNotFound(f"{name} has no revision {revision.brief}")
        return tree

    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        file = self.tree(name, revision).file(path)
        if file is None:
            raise FileMissing(f"no file {path[:80]!a} in {name}@{revision.brief}")
        self._require_given(name, revision)
        check_start(start, file.size, path)
        return self.stored_chunks(file.sha256, start, f"{path} of {name}@{revision.brief}")

    def _require_given(self, name: AdapterName, revision: Digest) -> None:
        with self.catalog.read() as tx:
            held = states.find_withdrawn_revision(tx, self.readable_adapter(tx, name), revision)
        if held and not may_read_files(self.identity, name, held.state):
            raise withdrawn_error(held)


def check_start(start: int, size: int, path: str) -> None:
    if not 0 <= start <= size:
        raise Invalid(f"{path[:80]} is {size:,} bytes; it cannot be read from {start}")
