"""A pull with stored SQL records the same as the whole registry, and leaves unusual cases to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect as connect_sqlite

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData, InvalidPath, NotFound, Withdrawn
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.operations.transfer.quick_pull import try_fast_pull
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, StateChange
from adaptry.storage.connect import connect, open_local
from adaptry.storage.lazy_registry import LazyRegistry
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A registry with three versions, the second of them deprecated, and an alias of the first."""
    with open_local(tmp_path / "data") as registry:
        options = PushOptions(alias="prod", metrics={"accuracy": 0.5})
        push(registry, open_dir(tiny_lora(tmp_path / "one")), TONE, options=options)
        second = push(registry, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE).version
        push(registry, open_dir(tiny_lora(tmp_path / "three", seed=3)), TONE)
        change = StateChange(state="deprecated", reason="there is a better one", successor="acme/tone@3")
        registry.versions.set_state(TONE, second.digest, change, 0)
        yield registry


@pytest.fixture
def lazy(whole: LocalRegistry, tmp_path: Path) -> Iterator[LazyRegistry]:
    with connect(str(tmp_path / "data"), is_lazy=True) as registry:
        assert isinstance(registry, LazyRegistry)
        yield registry


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def digest_of(whole: Registry, number: int) -> str:
    return str(whole.version(f"acme/tone@{number}").digest)


@pytest.mark.parametrize("ref", ["acme/tone", "acme/tone@1", "acme/tone@prod"])
def test_a_quick_pull_writes_and_counts_what_a_pull_does(
    lazy: LazyRegistry, whole: LocalRegistry, tmp_path: Path, ref: str
) -> None:
    before = whole.version(ref).downloads

    version = try_fast_pull(lazy, Ref.parse(ref), tmp_path / "quick")
    pulled = pull(whole, ref, tmp_path / "pulled")

    assert version is not None
    assert (version.name, version.number, version.digest) == (pulled.name, pulled.number, pulled.digest)
    assert (version.label, version.revision_ref) == (pulled.label, pulled.revision_ref)
    assert files_in(tmp_path / "quick") == files_in(tmp_path / "pulled")
    assert whole.version(ref).downloads == before + 2
    assert whole.adapters.get(TONE).downloads == before + 2
    assert "whole" not in vars(lazy)


def test_a_version_is_found_by_the_digits_of_its_digest(lazy: LazyRegistry, whole: LocalRegistry) -> None:
    digest = digest_of(whole, 3)

    found = [lazy.try_find(Ref.parse(f"acme/tone@{text}")) for text in (digest, digest[:20])]

    assert [version and version.number for version in found] == [3, 3]


@pytest.mark.parametrize("ref", ["acme/tone@2", "acme/tone@9", "acme/tone@none", "acme/none"])
def test_a_version_that_needs_an_explanation_is_not_pulled_plainly(
    lazy: LazyRegistry, tmp_path: Path, ref: str
) -> None:
    assert try_fast_pull(lazy, Ref.parse(ref), tmp_path / "quick") is None
    assert not (tmp_path / "quick").exists()


def test_an_existing_folder_is_left_to_the_other_pull(lazy: LazyRegistry, tmp_path: Path) -> None:
    (tmp_path / "quick").mkdir()

    assert try_fast_pull(lazy, Ref.parse("acme/tone"), tmp_path / "quick") is None


def test_another_registry_is_left_to_the_other_pull(whole: LocalRegistry, tmp_path: Path) -> None:
    assert try_fast_pull(whole, Ref.parse("acme/tone"), tmp_path / "quick") is None


def test_a_version_that_is_revoked_after_it_was_found_is_refused(
    lazy: LazyRegistry, whole: LocalRegistry
) -> None:
    version = lazy.try_find(Ref.parse("acme/tone@3"))
    assert version is not None
    change = StateChange(state="revoked", reason="it leaks its training data")
    whole.versions.set_state(TONE, version.digest, change, 0)

    # The user of a folder may still read the files of a revoked version, but not pull it.
    assert lazy.try_find(Ref.parse("acme/tone@3")) is None
    with pytest.raises(Withdrawn):
        pull(lazy, "acme/tone@3", Path("nowhere"))


def test_a_lost_file_is_reported_by_the_whole_registry(lazy: LazyRegistry, whole: LocalRegistry) -> None:
    version = lazy.try_find(Ref.parse("acme/tone@1"))
    assert version is not None
    whole.context.blobs.delete(version.files[0].sha256)

    with pytest.raises(CorruptData, match="its bytes are lost"):
        lazy.files.read(TONE, version.digest, version.files[0].path)


def test_an_unknown_file_is_reported_by_the_whole_registry(lazy: LazyRegistry) -> None:
    version = lazy.try_find(Ref.parse("acme/tone@1"))
    assert version is not None
    with pytest.raises(NotFound, match="no file 'none'"):
        lazy.files.read(TONE, version.digest, "none")


def test_a_damaged_manifest_is_not_believed(lazy: LazyRegistry, whole: LocalRegistry, tmp_path: Path) -> None:
    digest = digest_of(whole, 1).removeprefix("sha256:")
    with closing(connect_sqlite(tmp_path / "data" / "catalog.sqlite")) as connection, connection:
        changed = "UPDATE revisions SET manifest = CAST(manifest || ' ' AS BLOB) WHERE digest = ?"
        connection.execute(changed, (digest,))

    assert lazy.try_find(Ref.parse("acme/tone@1")) is None
    with pytest.raises(CorruptData, match="manifest"):
        pull(lazy, "acme/tone@1", tmp_path / "pulled")


def test_a_path_outside_the_folder_is_never_written(
    lazy: LazyRegistry, whole: LocalRegistry, tmp_path: Path
) -> None:
    digest = whole.version("acme/tone@1").digest
    tree = whole.commits.tree(TONE, digest).to_bytes().replace(b'"adapter_config.json"', b'"../escaped.json"')
    with closing(connect_sqlite(tmp_path / "data" / "catalog.sqlite")) as connection, connection:
        new, old = Digest.of(tree).hex, digest.hex
        connection.execute("UPDATE revisions SET manifest = ?, digest = ? WHERE digest = ?", (tree, new, old))
        for table in ("versions", "commits"):
            connection.execute(f"UPDATE {table} SET digest = ? WHERE digest = ?", (new, old))

    assert try_fast_pull(lazy, Ref.parse("acme/tone@1"), tmp_path / "quick") is None
    with pytest.raises(InvalidPath):
        pull(lazy, "acme/tone@1", tmp_path / "quick")
    assert not (tmp_path / "escaped.json").exists()


def test_files_known_to_be_damaged_are_not_pulled_plainly(
    lazy: LazyRegistry, whole: LocalRegistry, tmp_path: Path
) -> None:
    version = lazy.try_find(Ref.parse("acme/tone@1"))
    assert version is not None
    with closing(connect_sqlite(tmp_path / "data" / "catalog.sqlite")) as connection, connection:
        marks = (version.files[0].sha256.hex, "it was changed", "2026-01-01 00:00:00.000000")
        connection.execute("INSERT INTO damaged_files (digest, reason, found_at) VALUES (?, ?, ?)", marks)

    assert lazy.try_find(Ref.parse("acme/tone@1")) is None
    with pytest.raises(CorruptData, match="it was changed"):
        lazy.files.read(TONE, version.digest, version.files[0].path)


def test_a_download_without_a_version_is_not_counted(lazy: LazyRegistry) -> None:
    with pytest.raises(NotFound):
        lazy.versions.count_download(Ref.parse("acme/tone@9"))
