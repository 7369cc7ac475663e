"""Finds adapters that are nearly equal to a given one, among all readable versions on its base; the base's
weights are not needed.

Equal weights are visible in the catalog. All other versions are read once, and their signatures are cached,
so that the next search needs only a few kilobytes per version. Signatures select candidates, and exact
cosines decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from adaptry.compute.comparison.results import SimilarAdapter, SimilarAdapters
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.torch_requirement import require_torch
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    AdaptryError,
    CheckFailed,
    NotFound,
    Unavailable,
    Unsupported,
)
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.settings import data_folder
from adaptry.operations.temporary_updates import temporary_updates
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import VersionInfo

if TYPE_CHECKING:
    from adaptry.compute.comparison.signature import Signature

Answer = TypeVar("Answer")

_PAGE = 200
_EXTRA_CANDIDATES = 10
"""Versions beyond the limit that are compared exactly, since signatures order them only approximately."""


def find_similar(
    registry: Registry,
    subject: ParentAdapter,
    base: str,
    *,
    limit: int = 10,
    above: float = 0.9,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> SimilarAdapters:
    """The versions on `base` (a name or an id) whose updates have a cosine of at least `above` with the
    subject's.

    Signatures are cached in `cache`, by default in the user's data folder. Adapters that are not sums of
    factors are compared by the digest of their weights. Raises `MissingDependency` (no torch), `Unavailable`.
    """
    require_torch("comparing weights needs torch")
    versions = [each for each in base_versions(registry, base) if version_ref(each) != subject.label]
    search = _SimilaritySearch(registry, subject, cache or data_folder() / "cache" / "signatures", progress)
    return search.run(versions, limit, above)


def base_versions(registry: Registry, base: str) -> list[VersionInfo]:
    """Every readable version on a base, found by its id and each of its names, each once."""
    try:
        info = registry.bases.get(base)
        keys: Sequence[str] = (str(info.id), *info.names)
    except NotFound:
        keys = (base,)  # declared by adapters, but not registered
    found: dict[str, VersionInfo] = {}
    for key in keys:
        versions = iter_items(partial(registry.versions.search, f'base:"{key}"', limit=_PAGE))
        found |= {version_ref(version): version for version in versions}
    return list(found.values())


def version_ref(version: VersionInfo) -> str:
    return version.label


@dataclass
class _SimilaritySearch:
    """One search. `uncomparable`: versions that are not sums of factors; `unread`: why others were
    skipped.
    """

    registry: Registry
    subject: ParentAdapter
    cache: Path
    progress: Progress
    uncomparable: set[Digest] = field(default_factory=set)
    unread: dict[Digest, str] = field(default_factory=dict)

    def run(self, versions: Sequence[VersionInfo], limit: int, above: float) -> SimilarAdapters:
        weights = self.subject.adapter.weights_digest()
        mine, uncompared = self._subject_updates()
        signatures = self._signatures(versions) if mine else {}
        same = [version for version in versions if version.weights == weights]
        likely = self._candidates(mine, signatures, [v for v in versions if v.weights != weights], above)
        looked = [*same, *likely][: limit + _EXTRA_CANDIDATES]
        found = [self._compare(mine, version, version.weights == weights) for version in looked]
        near = sorted((each for each in found if _is_near(each, above)), key=_similarity_key, reverse=True)
        by_weights = [v for v in versions if mine is None or v.digest in self.uncomparable]
        return SimilarAdapters(
            found=tuple(near[:limit]),
            looked_at=len(versions),
            by_weights_only=len(by_weights),
            likely_more=len(near[limit:]) + len(same) + len(likely) - len(looked),
            uncompared=uncompared,
            notes=self._notes(),
        )

    def _subject_updates(self) -> tuple[AdapterDeltas | None, str | None]:
        """The subject's updates, or the reason why only the digest of its weights can be compared."""
        try:
            return open_adapter_deltas(self.subject), None
        except (Unsupported, CheckFailed) as error:
            return None, error.message

    def _candidates(
        self,
        mine: AdapterDeltas | None,
        signatures: Mapping[Digest, Signature],
        versions: Sequence[VersionInfo],
        above: float,
    ) -> list[VersionInfo]:
        """The versions that their signatures do not rule out, the most likely first."""
        from adaptry.compute.comparison.signature import Signature, cosine_margin, estimate_cosine

        if mine is None:
            return []
        own = Signature.of(mine)
        estimates = {digest: estimate_cosine(own, signature) for digest, signature in signatures.items()}
        minimum = above - cosine_margin(above)
        likely = [version for version in versions if estimates.get(version.digest, -2.0) >= minimum]
        return sorted(likely, key=lambda version: estimates[version.digest], reverse=True)

    def _signatures(self, versions: Sequence[VersionInfo]) -> dict[Digest, Signature]:
        from adaptry.compute.comparison.signature_files import load_signature

        found: dict[Digest, Signature] = {}
        pending: dict[Digest, VersionInfo] = {}
        for version in versions:
            if version.digest in found or version.digest in pending:
                continue
            if signature := load_signature(self.cache, version.digest):
                found[version.digest] = signature
            else:
                pending[version.digest] = version
        total, done = sum(version.size for version in pending.values()), 0
        for version in pending.values():
            if signature := self._signature(version):
                found[version.digest] = signature
            done += version.size
            self.progress("reading adapters", done, total)
        return found

    def _signature(self, version: VersionInfo) -> Signature | None:
        from adaptry.compute.comparison.signature import Signature
        from adaptry.compute.comparison.signature_files import save_signature

        signature = self._read(version, Signature.of)
        if signature is not None:
            save_signature(self.cache, version.digest, signature)
        return signature

    def _read(self, version: VersionInfo, ask: Callable[[AdapterDeltas], Answer]) -> Answer | None:
        """The result of `ask` for a version's updates; None, with a note, if they cannot be read."""
        try:
            with temporary_updates(self.registry, version) as updates:
                return ask(updates)
        except (Unsupported, CheckFailed):
            self.uncomparable.add(version.digest)
        except Unavailable:
            raise
        except AdaptryError as error:  # a damaged or deleted version must not end the search
            self.unread[version.digest] = f"{version_ref(version)}: {error.message}"
        return None

    def _compare(self, mine: AdapterDeltas | None, version: VersionInfo, is_same: bool) -> SimilarAdapter:
        from adaptry.compute.comparison.similarity import measure_similarity

        found = None
        if mine is not None and version.digest not in self.uncomparable:
            found = self._read(version, lambda theirs: measure_similarity(mine, theirs))
        return SimilarAdapter(
            ref=version_ref(version),
            digest=str(version.digest),
            cosine=found.cosine if found else None,
            ratio=found.ratio if found else None,
            shared_modules=found.shared if found else None,
            modules=len(self.subject.adapter.spec.modules),
            same_weights=is_same,
        )

    def _notes(self) -> tuple[str, ...]:
        if not self.unread:
            return ()
        many = "1 version" if len(self.unread) == 1 else f"{len(self.unread)} versions"
        return (f"{many} could not be read (first: {next(iter(self.unread.values()))})",)


def _is_near(found: SimilarAdapter, above: float) -> bool:
    return found.same_weights or (found.cosine is not None and found.cosine >= above)


def _similarity_key(found: SimilarAdapter) -> tuple[bool, float]:
    return found.same_weights, found.cosine if found.cosine is not None else -2.0
