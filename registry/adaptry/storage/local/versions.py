"""The versions role of a local registry: resolves refs, lists and searches versions, reads files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.versions import Versions
from adaptry.storage.catalog import adapters, cursors, versions
from adaptry.storage.catalog.version_info import info
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.hidden_bases import hide_bases, hide_bases_in_details
from adaptry.storage.local.inspections import inspect_tensors
from adaptry.storage.local.push_steps import BatchedPush, finish_together
from adaptry.storage.local.revision_admission import RevisionAdmission

if TYPE_CHECKING:
    from adaptry.adapters.spec import Spec
    from adaptry.adapters.weight_statistics import MeasuredWeights, WeightDistance, WeightStatistics
    from adaptry.registry.records import (
        Page,
        PushOptions,
        PushResult,
        StateChange,
        TensorInspection,
        VersionDetail,
        VersionInfo,
    )


@dataclass(frozen=True)
class LocalVersions(Versions):
    """The versions of a local registry."""

    context: RegistryContext

    def put(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        return RevisionAdmission(self.context).admit(name, manifest, options)

    def put_with_files(
        self, name: AdapterName, manifest: bytes, options: PushOptions, files: Sequence[bytes]
    ) -> PushResult:
        (outcome,) = finish_together([self.pending_push(name, manifest, options, files)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def pending_push(
        self, name: AdapterName, manifest: bytes, options: PushOptions, files: Sequence[bytes]
    ) -> BatchedPush:
        """The push of `put_with_files`, to be carried out together with others by `finish_together`."""
        steps = RevisionAdmission(self.context).steps(name, manifest, options, files)
        return BatchedPush(self.context, name.namespace, steps)

    def get(self, ref: Ref) -> VersionInfo:
        with self.context.catalog.read_prepared() as reads:
            version = info(reads, self.context.resolve(reads, ref))
            if self.context.sees_base(reads, version.base_id):
                return version
        with self.context.catalog.read() as tx:
            return self.context.hide_base(tx, info(tx, self.context.resolve(tx, ref)))

    def detail(self, ref: Ref) -> VersionDetail:
        return self.details([ref])[0]

    def details(self, refs: Sequence[Ref]) -> tuple[VersionDetail, ...]:
        return self._details(refs, versions.decode_spec)

    def detail_json(self, ref: Ref) -> bytes:
        from adaptry.storage.catalog.encoded_specs import EncodedSpecs  # only servers need it

        encoded = EncodedSpecs()
        (detail,) = self._details([ref], encoded.spec)
        return encoded.insert(detail.model_dump_json(by_alias=True)).encode()

    def _details(self, refs: Sequence[Ref], spec_of: Callable[[bytes], Spec]) -> tuple[VersionDetail, ...]:
        with self.context.catalog.read_prepared(about=("details", *refs)) as reads:
            found = versions.details(reads, self.context.resolve_all(reads, refs), spec_of)
            if all(self.context.sees_base(reads, each.version.base_id) for each in found):
                return found
        with self.context.catalog.read() as tx:
            found = versions.details(tx, self.context.resolve_all(tx, refs), spec_of)
            return hide_bases_in_details(tx, self.context.read_scope(tx), found)

    def list(
        self,
        name: AdapterName,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        from adaptry.storage.catalog import version_pages

        cursors.check_limit(limit)
        listing = version_pages.VersionListing(sort, reverse)
        with (
            self.context.catalog.read_prepared() if listing.is_prepared else self.context.catalog.read() as tx
        ):
            page = version_pages.page(tx, self.context.readable_adapter(tx, name), listing, cursor, limit)
            return page.model_copy(update={"items": hide_bases(tx, self.context.read_scope(tx), page.items)})

    def search(
        self,
        query: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        from adaptry.storage.local.version_search import VersionSearch  # used only here

        return VersionSearch(self.context, query, cursor, limit, sort, reverse).page()

    def search_json(
        self,
        query: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> bytes:
        from adaptry.storage.local.version_search import VersionSearch

        return VersionSearch(self.context, query, cursor, limit, sort, reverse).json()

    def count_download(self, ref: Ref) -> None:
        with self.context.write(is_durable=False) as tx:
            adapter = self.context.readable_adapter(tx, ref.name)
            versions.count_downloads(tx, to_record(self.context.resolve(tx, ref)))
            adapters.count_downloads(tx, adapter)

    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        return inspect_tensors(self.context, ref, cursor, limit)

    def weight_statistics(self, ref: Ref) -> WeightStatistics:
        from adaptry.storage.local.weight_measurements import weight_statistics  # no push needs it

        return weight_statistics(self.context, ref)

    def weight_distance(self, ref: Ref, other: Ref) -> WeightDistance:
        from adaptry.storage.local.weight_measurements import weight_distance

        return weight_distance(self.context, ref, other)

    def measured_weights(self, refs: Sequence[Ref]) -> tuple[MeasuredWeights, ...]:
        from adaptry.storage.local.weight_measurements import measured_weights

        return measured_weights(self.context, refs)

    def bind_base(self, name: AdapterName, revision: Digest, base: Digest) -> VersionDetail:
        from adaptry.storage.local.base_binding import bind_base

        return bind_base(self.context, name, revision, base)

    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        from adaptry.storage.local.states import set_state

        return set_state(self.context, name, revision, change, was)
