"""Promises about revisions: they are admitted completely or not at all, checked, numbered once, and read back
unchanged.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.content import Content
from adaptry.adapters.formats import CONFIG, WEIGHTS
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    CheckFailed,
    Conflict,
    DigestMismatch,
    Invalid,
    InvalidManifest,
    InvalidPath,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unsupported,
)
from adaptry.core.identity import LOCAL
from adaptry.core.manifest import BaseClaim, Manifest
from adaptry.core.refs import ByDigest, Latest, Number, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterEdit, Page, PushOptions, VersionInfo
from adaptry.registry.versions import MAX_SENT
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.samples import tiny_base

OPTIONS = PushOptions()


class RevisionsContract(ContractFixtures):
    """`versions.put` to `versions.count_download`, and `read_file`."""

    def test_a_bare_push_of_the_files_of_a_version_with_a_history_is_that_version(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        adapter = lora()
        trained = push(registry, adapter, TONE, provenance={"run": "42"})
        again = push(registry, adapter, TONE, options=PushOptions(alias="prod", metrics={"loss": 1.0}))
        assert not again.is_new and again.version.digest == trained.version.digest
        assert (again.version.aliases, again.version.metrics) == (("prod",), {"loss": 1.0})
        assert push(registry, adapter, TONE, provenance={"run": "43"}).is_new
        elsewhere = push(registry, adapter, TONE, base=BaseClaim(id=Digest.of(b"base")))
        assert elsewhere.is_new, "another base is another version"

    def test_the_registry_derives_a_versions_properties(self, registry: Registry, lora: MakeLora) -> None:
        version = push(registry, lora(rank=4, targets=("q_proj", "v_proj")), TONE).version
        assert (version.number, version.state, version.method, version.rank) == (1, "active", "lora", 4)
        assert version.targets == ("q_proj", "v_proj")
        assert (version.base_name, version.base_status) == ("org/tiny", "declared")
        assert version.created_by

    def test_the_weights_digest_does_not_depend_on_how_the_file_arrived(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        adapter = lora()
        whole = adapter.content.read_all(WEIGHTS, 1 << 20)
        upload = registry.uploads.open(TONE, Digest.of(whole), len(whole))
        for start, end in ((0, 5), (5, 700), (700, len(whole))):
            upload = registry.uploads.append(upload, start, [whole[start:end]])
        registry.uploads.finish(upload)
        assert push(registry, adapter, TONE).version.weights == adapter.weights_digest()
        assert push(registry, lora(2), TONE).version.weights == lora(2).weights_digest()

    def test_pushing_a_revision_again_returns_its_version(self, registry: Registry, lora: MakeLora) -> None:
        adapter = lora()
        first = push(registry, adapter, TONE)
        push(registry, lora(2), TONE)
        again = push(registry, adapter, TONE)
        assert (first.is_new, again.is_new) == (True, False)
        assert again.version.number == first.version.number
        assert again.report == first.report

    def test_a_copied_version_keeps_its_number_if_it_is_free(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        def numbered(seed: int, number: int | None) -> int:
            return push(registry, lora(seed), TONE, options=PushOptions(number=number)).version.number

        wished = (7, None, 3, 7, 3, 1, 20)
        assert [numbered(seed, number) for seed, number in enumerate(wished)] == [7, 8, 3, 9, 10, 1, 20]
        registry.adapters.delete(TONE)
        assert [numbered(seed, number) for seed, number in enumerate((3, 2, None))] == [21, 2, 22]
        assert registry.versions.get(Ref(TONE, Latest())).number == 22

    def test_a_push_repeated_after_its_answer_was_lost_changes_nothing(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        adapter = lora()
        options = PushOptions(metrics={"accuracy": 0.9}, alias="staging")
        push(registry, adapter, TONE, options=options)
        before = registry.adapters.history(TONE)
        push(registry, adapter, TONE, options=options)
        assert registry.adapters.history(TONE) == before
        assert len(registry.metrics.list(Ref(TONE))) == 1

    def test_an_alias_given_with_a_push_moves_to_it(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(1), TONE, options=PushOptions(alias="staging"))
        second = push(registry, lora(2), TONE, options=PushOptions(alias="staging"))
        assert second.version.aliases == ("staging",)
        assert registry.versions.get(Ref.parse("acme/tone@staging")).number == 2

    def test_concurrent_pushes_get_different_numbers(self, registry: Registry, lora: MakeLora) -> None:
        adapters = [lora(seed) for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            numbers = [
                pushed.version.number
                for pushed in pool.map(lambda adapter: push(registry, adapter, TONE), adapters)
            ]
        assert sorted(numbers) == [1, 2, 3, 4, 5, 6]

    def test_identical_concurrent_pushes_create_one_version(self, registry: Registry, lora: MakeLora) -> None:
        adapter = lora()
        with ThreadPoolExecutor(4) as pool:
            pushed = list(pool.map(lambda _: push(registry, adapter, TONE), range(4)))
        assert {item.version.number for item in pushed} == {1}
        assert [item.is_new for item in pushed].count(True) == 1

    def test_a_version_is_found_by_every_kind_of_ref(self, registry: Registry, lora: MakeLora) -> None:
        first = push(registry, lora(1), TONE).version
        second = push(registry, lora(2), TONE).version
        for selector, wanted in (
            (Latest(), second),
            (Number(1), first),
            (ByDigest(first.digest.hex), first),
            (ByDigest(second.digest.hex[:12]), second),
        ):
            assert registry.versions.get(Ref(TONE, selector)) == wanted
        for text in ("acme/tone@3", "acme/tone@nowhere", f"acme/tone@sha256:{'0' * 12}"):
            with pytest.raises(NotFound, match="no version acme/tone@"):
                registry.versions.get(Ref.parse(text))

    def test_the_manifest_comes_back_byte_for_byte(self, registry: Registry, lora: MakeLora) -> None:
        version = push(registry, lora(), TONE, provenance={"run": "42"}).version
        detail = registry.versions.detail(Ref(TONE))
        assert Digest.of(detail.manifest.to_bytes()) == version.digest
        assert detail.manifest.provenance == {"run": "42"}
        assert detail.spec.rank == version.rank
        assert len(detail.report.findings) == version.findings

    def test_files_read_back_from_any_place(self, registry: Registry, lora: MakeLora) -> None:
        adapter = lora()
        version = push(registry, adapter, TONE).version
        for path, size in adapter.content.sizes.items():
            whole = adapter.content.read(path, 0, size)
            assert b"".join(registry.files.read(TONE, version.digest, path)) == whole
            assert b"".join(registry.files.read(TONE, version.digest, path, 7)) == whole[7:]
            assert b"".join(registry.files.read(TONE, version.digest, path, size)) == b""
            with pytest.raises(Invalid, match="cannot be read from"):
                registry.files.read(TONE, version.digest, path, size + 1)

    def test_an_absent_file_cannot_be_read(self, registry: Registry, lora: MakeLora) -> None:
        version = push(registry, lora(), TONE).version
        with pytest.raises(NotFound, match="no file"):
            registry.files.read(TONE, version.digest, "README.md")
        with pytest.raises(NotFound):
            registry.files.read(TONE, Digest.of(b"?"), CONFIG)

    def test_a_revision_with_missing_files_is_refused(self, registry: Registry, lora: MakeLora) -> None:
        manifest = manifest_of(lora())
        with pytest.raises(NotFound, match=CONFIG):
            registry.versions.put(TONE, manifest.to_bytes(), OPTIONS)
        with pytest.raises(NotFound):
            registry.adapters.get(TONE)

    def test_a_push_cannot_use_another_adapters_files(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        adapter = lora()
        push(make_registry(ADA), adapter, TONE)
        with pytest.raises(NotFound, match="has no bytes yet"):
            make_registry(EVE).versions.put(TONE.parse("evil/tone"), manifest_of(adapter).to_bytes(), OPTIONS)

    def test_a_wrong_file_size_is_refused(self, registry: Registry, lora: MakeLora) -> None:
        adapter = lora()
        push(registry, adapter, TONE)
        files = {path: (size + 1, digest) for path, (size, digest) in files_of(adapter.content).items()}
        with pytest.raises(InvalidManifest, match="bytes"):
            registry.versions.put(TONE, Manifest.of(files).to_bytes(), OPTIONS)

    def test_a_malformed_manifest_is_refused(self, registry: Registry) -> None:
        for data in (b"", b"{}", b"\x80\x04.", b'{"schema": 1, "files": []}'):
            with pytest.raises(InvalidManifest):
                registry.versions.put(TONE, data, OPTIONS)

    def test_a_file_with_an_unknown_name_is_refused(self, registry: Registry, lora: MakeLora) -> None:
        files = files_of(lora().content) | {"setup.py": (3, Digest.of(b"abc"))}
        with pytest.raises(InvalidPath, match=r"setup\.py"):
            registry.versions.put(TONE, Manifest.of(files).to_bytes(), OPTIONS)

    @pytest.mark.parametrize(
        "data",
        [b"PK\x03\x04zip", b"\x80\x04\x95pickle", b"\x1f\x8bgzip", b"7z\xbc\xaf\x27\x1c7z", b"\x7fELF"],
    )
    def test_a_dangerous_file_under_a_harmless_name_is_refused(
        self, registry: Registry, lora: MakeLora, data: bytes
    ) -> None:
        adapter = lora()
        push(registry, adapter, TONE)
        digest = Digest.of(data)
        session = registry.uploads.open(TONE, digest, len(data))
        registry.uploads.finish(registry.uploads.append(session, 0, [data]))
        manifest = Manifest.of(files_of(adapter.content) | {"README.md": (len(data), digest)})
        with pytest.raises(Unsupported, match=r"README\.md is a"):
            registry.versions.put(TONE, manifest.to_bytes(), OPTIONS)

    def test_a_push_that_may_not_create_needs_the_adapter(self, registry: Registry, lora: MakeLora) -> None:
        with pytest.raises(NotFound, match="create it first"):
            push(registry, lora(), TONE, options=PushOptions(create=False))

    def test_only_writers_push(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        push(make_registry(ADA), lora(1), TONE)
        manifest = manifest_of(lora(1)).to_bytes()
        for other in (RON, EVE):
            with pytest.raises(PermissionDenied):
                make_registry(other).versions.put(TONE, manifest, OPTIONS)

    def test_a_small_push_includes_its_files_and_may_be_repeated(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        manifest, contents = whole(lora())
        first, again = (
            registry.versions.put_with_files(TONE, manifest.to_bytes(), OPTIONS, contents) for _ in range(2)
        )
        assert (first.version.number, first.is_new, again.is_new) == (1, True, False)
        assert again.version == first.version
        for entry, data in zip(manifest.files, contents, strict=True):
            assert b"".join(registry.files.read(TONE, manifest.digest, entry.path)) == data
        assert registry.versions.inspect_tensors(Ref(TONE)).items

    def test_a_push_with_other_bytes_than_its_manifest_stores_nothing(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        manifest, contents = whole(lora())
        last = contents[-1]
        changed = [*contents[:-1], last[:-1] + bytes([last[-1] ^ 1])]
        with pytest.raises(DigestMismatch, match="bytes received are sha256:"):
            registry.versions.put_with_files(TONE, manifest.to_bytes(), OPTIONS, changed)
        for wrong in (contents[:-1], [*contents, b"more"], [*contents[:-1], last[:-1]]):
            with pytest.raises(InvalidManifest, match="bytes were sent"):
                registry.versions.put_with_files(TONE, manifest.to_bytes(), OPTIONS, wrong)
        assert not any(registry.files.has(TONE, entry.sha256) for entry in manifest.files)

    def test_a_push_that_is_refused_stores_none_of_its_files(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        manifest, contents = whole(lora(alpha=0))
        with pytest.raises(CheckFailed):
            registry.versions.put_with_files(TONE, manifest.to_bytes(), OPTIONS, contents)
        assert not any(registry.files.has(TONE, entry.sha256) for entry in manifest.files)

    def test_an_adapter_that_is_not_small_needs_uploads(self, registry: Registry) -> None:
        files = {CONFIG: (2, Digest.of(b"{}")), WEIGHTS: (MAX_SENT, Digest.of(b""))}
        with pytest.raises(TooLarge, match="8 MiB are pushed in one request; upload them first"):
            registry.versions.put_with_files(TONE, Manifest.of(files).to_bytes(), OPTIONS, [b"{}", b""])

    def test_an_adapter_that_does_not_fit_its_base_is_refused_with_the_remedy(
        self, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        register_base(
            registry, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",), cache=tmp_path / "cache"
        )
        misfit = lora(hidden=32)
        with pytest.raises(CheckFailed, match="→"):
            push(registry, misfit, TONE)
        forced = push(registry, misfit, TONE, options=PushOptions(force_reason="for the archive"))
        assert forced.version.base_status == "declared"
        assert registry.versions.detail(Ref(TONE)).forced == "for the archive"
        assert forced.report.is_blocked

    def test_only_an_administrator_overrides_blocking_findings(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        nothing, why = lora(alpha=0), PushOptions(force_reason="to show the fault")
        with pytest.raises(PermissionDenied, match=r"lora_alpha is 0.*an owner of 'acme' may"):
            push(make_registry(ADA), nothing, TONE, options=why)
        push(make_registry(LOCAL), nothing, TONE, options=why)
        assert make_registry(ADA).versions.detail(Ref(TONE)).forced == "to show the fault"

    def test_versions_are_listed_newest_first_page_by_page(self, registry: Registry, lora: MakeLora) -> None:
        for seed in range(5):
            push(registry, lora(seed), TONE)
        first = registry.versions.list(TONE, limit=2)
        second = registry.versions.list(TONE, cursor=first.next, limit=2)
        third = registry.versions.list(TONE, cursor=second.next, limit=2)
        numbers = [item.number for page in (first, second, third) for item in page.items]
        assert numbers == [5, 4, 3, 2, 1]
        assert third.next is None

    def test_versions_are_listed_in_every_order_page_by_page(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        for seed, (rank, accuracy) in enumerate(((4, 0.5), (8, None), (4, 0.9), (2, 0.5))):
            metrics = {} if accuracy is None else {"accuracy": accuracy}
            push(registry, lora(seed, rank=rank), TONE, options=PushOptions(metrics=metrics))
        registry.versions.count_download(Ref.parse("acme/tone@3"))
        expected = {
            "newest": ([4, 3, 2, 1], [1, 2, 3, 4]),
            "rank": ([2, 3, 1, 4], [4, 1, 3, 2]),
            "downloads": ([3, 4, 2, 1], [1, 2, 4, 3]),
            "metric.accuracy": ([3, 4, 1, 2], [1, 4, 3, 2]),  # a version without a value comes last
            "metric.none": ([4, 3, 2, 1], [1, 2, 3, 4]),
        }

        def listed(sort: str, reverse: bool) -> list[int]:
            def page(cursor: str | None) -> Page[VersionInfo]:
                return registry.versions.list(TONE, cursor, 1, sort=sort, reverse=reverse)

            return [info.number for info in iter_items(page)]

        for sort, (forward, backward) in expected.items():
            assert listed(sort, False) == forward
            assert listed(sort, True) == backward
        with pytest.raises(Invalid, match=r"unknown sort key 'metric\.' \(one of: newest, .*metric.NAME"):
            registry.versions.list(TONE, sort="metric.")

    def test_a_cursor_of_versions_continues_only_its_own_order(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        for seed in (1, 2):
            push(registry, lora(seed), TONE)
        orders = (("newest", False), ("newest", True), ("rank", False), ("rank", True), ("downloads", False))
        for sort, reverse in orders:
            cursor = registry.versions.list(TONE, limit=1, sort=sort, reverse=reverse).next
            assert cursor is not None
            for other in orders:
                if other == (sort, reverse):
                    continue
                with pytest.raises(Invalid, match="cursor does not belong"):
                    registry.versions.list(TONE, cursor, sort=other[0], reverse=other[1])

    def test_downloads_are_counted(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(), TONE)
        for _ in range(3):
            registry.versions.count_download(Ref(TONE))
        assert registry.versions.get(Ref(TONE)).downloads == 3
        assert registry.adapters.get(TONE).downloads == 3

    def test_a_failed_push_leaves_nothing_visible(self, registry: Registry, lora: MakeLora) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises((Invalid, Conflict)):
            push(registry, lora(), TONE, options=PushOptions(alias="latest"))
        assert registry.versions.list(TONE).items == ()


def files_of(content: Content) -> dict[str, tuple[int, Digest]]:
    """The manifest's entries for a content's files."""
    return {path: (size, Digest.of_chunks(content.chunks(path))) for path, size in content.sizes.items()}


def whole(adapter: Adapter) -> tuple[Manifest, list[bytes]]:
    """The manifest, and the bytes of each of its files."""
    content = adapter.content
    return manifest_of(adapter), [b"".join(content.chunks(path)) for path in content.sizes]


def manifest_of(adapter: Adapter) -> Manifest:
    """A manifest that claims nothing but the files."""
    return Manifest.of(files_of(adapter.content))
