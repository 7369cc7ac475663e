"""Promises about commits: a commit is a revision, and a branch moves only by compare-and-swap."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import CONFIG, WEIGHTS
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    CheckFailed,
    Conflict,
    FileMissing,
    InvalidManifest,
    InvalidPath,
    InvalidRef,
    InvalidWeights,
    NotFound,
    PermissionDenied,
    RevisionNotFound,
    Unsupported,
)
from adaptry.core.manifest import EMPTY, Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.commit_info import CommitNote, CommitResult
from adaptry.registry.interface import Registry
from adaptry.registry.manifest_inheritance import inherit_manifest
from adaptry.registry.records import AdapterEdit
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.samples import tiny_base

NOTE = CommitNote(title="Upload model", message="after three epochs")
Files = dict[str, bytes]


class CommitsContract(ContractFixtures):
    """`commits.put`, `commit`, `commits`, `tree`, and their effect on versions."""

    def test_a_new_adapter_has_an_empty_tree(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        first = registry.commits.get(TONE)
        assert (first.digest, first.parent, first.number) == (EMPTY.digest, None, None)
        assert registry.commits.tree(TONE, first.digest) == EMPTY
        assert registry.commits.list(TONE).items == (first,)

    def test_a_commit_of_an_adapter_becomes_the_next_version(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        root = registry.commits.get(TONE)
        committed = commit(registry, files_of(lora()))
        assert committed.version is not None and committed.report is not None
        assert (committed.version.number, committed.version.method, committed.is_new) == (1, "lora", True)
        assert (committed.commit.parent, committed.commit.number, committed.commit.carries) == (root.id, 1, 1)
        assert (committed.commit.title, committed.commit.message) == (NOTE.title, NOTE.message)
        assert committed.commit.id == committed.version.digest.hex[:40]
        assert registry.commits.get(TONE) == committed.commit
        assert registry.versions.get(Ref(TONE)) == committed.version

    def test_a_push_is_a_commit_on_main(self, registry: Registry, lora: MakeLora) -> None:
        first, second = (push(registry, lora(seed), TONE).version for seed in (1, 2))
        head = registry.commits.get(TONE)
        assert (head.digest, head.number, head.branch) == (second.digest, 2, "main")
        chain = registry.commits.list(TONE).items
        assert [item.digest for item in chain] == [second.digest, first.digest, EMPTY.digest]
        assert [item.parent for item in chain] == [first.digest.short_id, EMPTY.digest.short_id, None]

    def test_a_changed_readme_creates_no_version(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(), TONE)
        files = files_of(lora())
        committed = commit(registry, files | {"README.md": b"# Tone"})
        assert (committed.is_new, committed.version) == (True, None)
        assert (committed.commit.number, committed.commit.carries) == (None, 1)
        assert registry.adapters.get(TONE).versions == 1
        assert b"".join(registry.files.read(TONE, committed.commit.digest, "README.md")) == b"# Tone"
        again = commit(registry, files | {"README.md": b"# Tones"})
        assert (again.commit.carries, again.commit.parent) == (1, committed.commit.id)

    def test_files_committed_separately_become_a_version_with_the_last_one(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        files = files_of(lora())
        partly = commit(registry, {CONFIG: files[CONFIG]})
        assert (partly.version, registry.adapters.get(TONE).versions) == (None, 0)
        whole = commit(registry, files)
        assert whole.commit.number == 1
        assert commit(registry, {CONFIG: files[CONFIG]}).version is None

    def test_a_commit_without_changes_is_not_recorded(self, registry: Registry, lora: MakeLora) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        parent = registry.commits.get(TONE).id
        first = commit(registry, files_of(lora()), parent=parent)
        before = registry.adapters.history(TONE)
        again = commit(registry, files_of(lora()), parent=parent)
        assert (again.commit, again.version, again.is_new) == (first.commit, first.version, False)
        assert registry.adapters.history(TONE) == before

    def test_a_branch_moves_only_from_where_you_saw_it(self, registry: Registry, lora: MakeLora) -> None:
        seen = push(registry, lora(1), TONE).version.digest.short_id
        commit(registry, files_of(lora(2)), parent=seen[:7])
        with pytest.raises(Conflict, match="look again"):
            commit(registry, files_of(lora(3)), parent=seen)
        assert registry.adapters.get(TONE).versions == 2
        commit(registry, files_of(lora(3)))
        assert registry.adapters.get(TONE).versions == 3
        with pytest.raises(InvalidRef, match="not the id of a commit"):
            commit(registry, files_of(lora(4)), parent="main")

    def test_one_of_many_concurrent_commits_on_one_parent_succeeds(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        seen = push(registry, lora(0), TONE).version.digest.short_id
        drafts = [files_of(lora(seed)) for seed in range(1, 6)]
        for files in drafts:
            send(registry, files)

        def attempt(files: Files) -> CommitResult | Conflict:
            try:
                return commit(registry, files, parent=seen)
            except Conflict as error:
                return error

        with ThreadPoolExecutor(5) as pool:
            results = list(pool.map(attempt, drafts))
        assert sum(isinstance(result, CommitResult) for result in results) == 1
        assert registry.adapters.get(TONE).versions == 2

    def test_commits_without_a_parent_all_succeed(self, registry: Registry, lora: MakeLora) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        drafts = [files_of(lora(seed)) for seed in range(4)]
        for files in drafts:
            send(registry, files)
        with ThreadPoolExecutor(4) as pool:
            landed = list(pool.map(lambda files: commit(registry, files), drafts))
        assert {item.commit.number for item in landed} == {1, 2, 3, 4}
        assert len(registry.commits.list(TONE).items) == 5

    def test_a_commit_of_an_earlier_tree_returns_the_earlier_commit(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first = push(registry, lora(1), TONE).version
        second = push(registry, lora(2), TONE).version
        back = commit(registry, tree=registry.commits.tree(TONE, first.digest))
        assert (back.commit.digest, back.commit.number, back.commit.parent) == (
            first.digest,
            1,
            second.digest.short_id,
        )
        assert back.is_new
        assert registry.versions.get(Ref(TONE)).number == 2  # the newest version is unchanged
        assert [item.number for item in registry.commits.list(TONE).items] == [1, 2, 1, None]

    def test_a_push_after_a_readme_commit_continues_from_it(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(1), TONE)
        edited = commit(registry, files_of(lora(1)) | {"README.md": b"# Tone"}).commit
        pushed = push(registry, lora(2), TONE).version
        head = registry.commits.get(TONE)
        assert (head.digest, head.parent) == (pushed.digest, edited.id)

    def test_declarations_stay_with_the_weights(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(1), TONE, provenance={"run": "42"})
        before = registry.commits.tree(TONE, registry.commits.get(TONE).digest)
        entries = {entry.path: (entry.size, entry.sha256) for entry in before.files}
        readme = {"README.md": (6, Digest.of(b"# Tone"))}
        assert inherit_manifest(before, entries | readme).provenance == {"run": "42"}
        assert inherit_manifest(before, readme).provenance == {}

    def test_history_is_read_page_by_page(self, registry: Registry, lora: MakeLora) -> None:
        for seed in range(4):
            push(registry, lora(seed), TONE)
        first = registry.commits.list(TONE, limit=2)
        second = registry.commits.list(TONE, cursor=first.next, limit=2)
        third = registry.commits.list(TONE, cursor=second.next, limit=2)
        numbers = [item.number for page in (first, second, third) for item in page.items]
        assert (numbers, third.next) == ([4, 3, 2, 1, None], None)
        assert [item.number for item in registry.commits.list(TONE, "v2").items] == [2, 1, None]

    def test_a_cursor_of_another_adapter_reveals_nothing_of_it(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(1), TONE)
        voice = AdapterName.parse("acme/voice")
        push(registry, lora(2), voice)
        following = registry.commits.list(TONE, limit=1).next
        with pytest.raises(Exception, match="cursor does not belong"):
            registry.commits.list(voice, cursor=following)

    def test_a_file_that_no_adapter_contains_is_refused(self, registry: Registry, lora: MakeLora) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        for path in ("training_args.bin", "setup.py", "model.safetensors"):
            with pytest.raises(InvalidPath, match="not a file"):
                commit(registry, {path: b"?"})
        with pytest.raises(InvalidPath, match="not a file"):
            commit(registry, files_of(lora()) | {"adapters.safetensors": b"?"})
        with pytest.raises(Unsupported, match="pickle"):
            commit(registry, {"README.md": b"\x80\x04\x95pickle"})
        with pytest.raises(InvalidWeights):
            commit(registry, {WEIGHTS: b"not safetensors at all"})
        assert registry.commits.get(TONE).digest == EMPTY.digest

    def test_checkpoints_are_stored_in_folders_of_a_branch_but_not_of_main(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(1), TONE)
        registry.commits.create_branch(TONE, "training")
        files = files_of(lora(1)) | {f"last/{path}": data for path, data in files_of(lora(2)).items()}
        committed = commit(registry, files, branch="training").commit
        assert (committed.number, committed.carries) == (None, 1)
        assert (
            b"".join(registry.files.read(TONE, committed.digest, f"last/{WEIGHTS}"))
            == files[f"last/{WEIGHTS}"]
        )
        with pytest.raises(InvalidPath, match="to a branch"):
            commit(registry, files)
        with pytest.raises(InvalidWeights):
            commit(registry, {f"last/{WEIGHTS}": b"not safetensors at all"}, branch="training")

    def test_a_branch_holds_many_checkpoints_and_a_version_few_files(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        registry.commits.create_branch(TONE, "training")
        one = files_of(lora(1))
        many = {f"checkpoint-{step}/{path}": data for step in range(100) for path, data in one.items()}
        committed = commit(registry, many, branch="training").commit
        assert len(registry.commits.tree(TONE, committed.digest).files) == len(many)
        with pytest.raises(InvalidManifest, match="at most 32"):
            commit(registry, one | {f"merges-{number}.txt": b"?" for number in range(31)})

    def test_a_commit_with_missing_files_lists_them(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        tree = Manifest.of({"README.md": (4, Digest.of(b"none"))})
        with pytest.raises(NotFound, match=r"README\.md"):
            commit(registry, tree=tree)

    def test_a_commit_cannot_use_another_adapters_files(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        theirs = AdapterName.parse("evil/tone")
        eve = make_registry(EVE)
        eve.adapters.create(theirs, AdapterEdit())
        with pytest.raises(NotFound, match="no bytes"):
            eve.commits.put(theirs, "main", tree_of(files_of(lora())).to_bytes(), NOTE)
        with pytest.raises(RevisionNotFound):
            eve.commits.tree(theirs, make_registry(ADA).commits.get(TONE).digest)

    def test_a_commit_of_an_adapter_that_cannot_work_is_refused_with_the_remedy(
        self, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
        register_base(registry, checkpoint, ("org/tiny",), cache=tmp_path / "cache")
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises(CheckFailed, match="→"):
            commit(registry, files_of(lora(hidden=32)))
        assert registry.commits.get(TONE).digest == EMPTY.digest

    def test_only_writers_commit(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        push(make_registry(ADA), lora(), TONE)
        tree = Manifest.of({}).to_bytes()
        with pytest.raises(PermissionDenied):
            make_registry(RON).commits.put(TONE, "main", tree, NOTE)
        with pytest.raises(NotFound, match="no adapter"):
            make_registry(EVE).commits.put(TONE, "main", tree, NOTE)
        assert make_registry(RON).commits.get(TONE).number == 1
        with pytest.raises(NotFound, match="no adapter"):
            make_registry(EVE).commits.get(TONE)

    def test_the_registry_determines_the_author_of_a_commit(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        ada.adapters.create(TONE, AdapterEdit())
        assert (
            commit(ada, files_of(lora())).commit.author
            == make_registry(ADA).adapters.history(TONE).items[0].by
        )

    def test_commits_are_in_the_history(self, registry: Registry, lora: MakeLora) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        commit(registry, files_of(lora()))
        commit(registry, files_of(lora()) | {"README.md": b"# Tone"})
        edited, pushed = registry.adapters.history(TONE, limit=2).items
        assert (edited.kind, edited.number, edited.detail["title"]) == ("commit.created", None, NOTE.title)
        assert (pushed.kind, pushed.number, pushed.detail["title"]) == ("version.pushed", 1, NOTE.title)

    def test_the_commits_of_a_deleted_adapter_do_not_exist(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        registry.adapters.delete(TONE)
        with pytest.raises(NotFound):
            registry.commits.get(TONE)
        registry.adapters.create(TONE, AdapterEdit())
        assert registry.commits.get(TONE).digest == EMPTY.digest
        with pytest.raises(RevisionNotFound):
            registry.commits.tree(TONE, digest)

    def test_a_file_absent_from_a_commit_is_missing(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        with pytest.raises(FileMissing, match="no file"):
            registry.files.read(TONE, digest, "README.md")


def commit(
    registry: Registry,
    files: Files | None = None,
    *,
    branch: str = "main",
    parent: str | None = None,
    tree: Manifest | None = None,
) -> CommitResult:
    """Uploads the missing ones of `files`, and commits their tree."""
    send(registry, files or {})
    return registry.commits.put(TONE, branch, (tree or tree_of(files or {})).to_bytes(), NOTE, parent)


def send(registry: Registry, files: Files) -> None:
    for data in files.values():
        digest = Digest.of(data)
        if not registry.files.has(TONE, digest):
            session = registry.uploads.open(TONE, digest, len(data))
            registry.uploads.finish(registry.uploads.append(session, 0, [data]))


def tree_of(files: Files) -> Manifest:
    return Manifest.of({path: (len(data), Digest.of(data)) for path, data in files.items()})


def files_of(adapter: Adapter) -> Files:
    """An adapter's complete files."""
    return {path: adapter.content.read_all(path, 1 << 20) for path in adapter.content.sizes}
