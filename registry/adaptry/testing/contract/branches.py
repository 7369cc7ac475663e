"""Promises about branches and tags: resolving names, who may move them, and the new names of renamed
adapters.
"""

from __future__ import annotations

import pytest

from adaptry.core.errors import Conflict, InvalidRef, NotFound, PermissionDenied, RevisionNotFound
from adaptry.core.identity import Identity
from adaptry.core.manifest import EMPTY
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry.testing.contract.commits import NOTE, commit, files_of
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

VOICE = AdapterName.parse("acme/voice")
ALTO = AdapterName.parse("acme/alto")


class BranchesContract(ContractFixtures):
    """`references`, the methods from `create_branch` to `squash`, `moved`, and the names under which a
    revision is found.
    """

    def test_a_revision_is_found_by_each_of_its_names(self, registry: Registry, lora: MakeLora) -> None:
        first, second = (push(registry, lora(seed), TONE).version.digest for seed in (1, 2))
        registry.aliases.move(TONE, "prod", first, was=None)
        registry.commits.create_branch(TONE, "feat/x", at="prod")
        registry.commits.create_tag(TONE, "v1.0", at=second.short_id[:9])
        words = {
            first: ("v1", "1", "prod", "feat/x", "refs/heads/prod", "refs/heads/feat/x", "refs/tags/v1"),
            second: ("main", "latest", "v2", "2", "v1.0", "refs/heads/main", "refs/tags/v1.0"),
        }
        for digest, meant in words.items():
            for word in (*meant, digest.short_id, digest.hex, digest.hex[:7], str(digest)):
                assert registry.commits.get(TONE, word).digest == digest, word

    @pytest.mark.parametrize(
        "word",
        [
            "",
            "v3",
            "3",
            "nowhere",
            "0000000",
            "refs/tags/main",
            "refs/heads/v1",
            "refs/pr/1",
            "a b",
            "é",
            "../x",
            "x" * 300,
        ],
    )
    def test_an_unknown_revision_name_is_not_found(
        self, registry: Registry, lora: MakeLora, word: str
    ) -> None:
        push(registry, lora(), TONE)
        with pytest.raises(RevisionNotFound):
            registry.commits.get(TONE, word)
        with pytest.raises(NotFound, match="no adapter"):
            registry.commits.get(VOICE, word)

    def test_commits_to_a_branch_are_drafts(self, registry: Registry, lora: MakeLora) -> None:
        released = push(registry, lora(1), TONE).version.digest
        registry.commits.create_branch(TONE, "draft")
        draft = commit(registry, files_of(lora(2)), branch="draft")
        assert (draft.version, draft.commit.number, draft.commit.carries) == (None, None, None)
        assert draft.commit.parent == released.short_id
        assert registry.commits.get(TONE).digest == released
        assert registry.commits.get(TONE, "draft") == draft.commit
        assert registry.commits.get(TONE, draft.commit.id) == draft.commit
        assert registry.commits.tree(TONE, draft.commit.digest).file("adapter_config.json")
        with pytest.raises(NotFound):
            registry.versions.get(Ref.parse(f"acme/tone@{draft.commit.digest}"))

    def test_a_draft_committed_to_main_becomes_a_version(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(1), TONE)
        registry.commits.create_branch(TONE, "draft")
        draft = commit(registry, files_of(lora(2)), branch="draft").commit
        released = commit(registry, tree=registry.commits.tree(TONE, draft.digest))
        assert (released.commit.id, released.commit.number) == (draft.id, 2)
        assert registry.commits.get(TONE, "draft").number == 2

    def test_a_ref_may_name_a_branch_or_tag_that_is_at_a_version(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first = push(registry, lora(1), TONE).version
        push(registry, lora(2), TONE)
        registry.commits.create_tag(TONE, "fixed", at="v1")
        registry.commits.create_branch(TONE, "draft")
        assert registry.versions.get(Ref.parse("acme/tone@fixed")) == first
        assert registry.versions.get(Ref.parse("acme/tone@draft")).number == 2
        commit(registry, files_of(lora(3)), branch="draft")
        with pytest.raises(NotFound, match="not a version; commit it to main"):
            registry.versions.get(Ref.parse("acme/tone@draft"))

    def test_a_commit_to_an_absent_branch_is_refused(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        registry.commits.create_tag(TONE, "fixed")
        for branch in ("nowhere", "fixed", "v1", digest.short_id, "refs/pr/1"):
            with pytest.raises(RevisionNotFound, match="no branch"):
                commit(registry, files_of(lora(2)), branch=branch)

    def test_an_alias_is_a_branch_that_only_an_alias_move_changes(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        digest = push(registry, lora(), TONE).version.digest
        registry.aliases.move(TONE, "prod", digest, was=None)
        for change in (
            lambda: commit(registry, files_of(lora(2)), branch="prod"),
            lambda: registry.commits.delete_branch(TONE, "prod"),
            lambda: registry.commits.squash(TONE, "prod", NOTE),
        ):
            with pytest.raises(PermissionDenied, match="adaptry alias set acme/tone@1 prod"):
                change()

    def test_a_branch_or_tag_called_prod_needs_the_right_to_move_the_alias(
        self, registry: Registry, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        registry.commits.create_branch(TONE, "prod")
        contributor = make_registry(Identity.with_role("connie", "contributor", ("acme",)))
        maintainer = make_registry(Identity.with_role("maia", "maintainer", ("acme",)))
        for change in (
            lambda: commit(contributor, files_of(lora(2)), branch="prod"),
            lambda: commit(contributor, files_of(lora(2)), branch="refs/heads/prod"),
            lambda: contributor.commits.squash(TONE, "prod", NOTE),
            lambda: contributor.commits.delete_branch(TONE, "prod"),
        ):
            with pytest.raises(PermissionDenied, match=r"alias\.move"):
                change()
        committed = commit(maintainer, files_of(lora(2)), branch="prod").commit
        assert registry.commits.get(TONE, "prod").id == committed.id
        maintainer.commits.delete_branch(TONE, "prod")
        maintainer.commits.create_tag(TONE, "PROD")
        with pytest.raises(PermissionDenied, match=r"alias\.move"):
            contributor.commits.delete_tag(TONE, "PROD")

    def test_branches_tags_and_aliases_share_their_names(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        registry.aliases.move(TONE, "prod", digest, was=None)
        registry.commits.create_branch(TONE, "draft")
        registry.commits.create_tag(TONE, "fixed")
        for name in ("prod", "draft", "fixed"):
            with pytest.raises(Conflict, match="already"):
                registry.commits.create_branch(TONE, name)
            with pytest.raises(Conflict, match="already"):
                registry.commits.create_tag(TONE, name)
        for name in ("draft", "fixed"):
            with pytest.raises(Conflict, match="choose another name"):
                registry.aliases.move(TONE, name, digest, was=None)

    @pytest.mark.parametrize(
        "name",
        [
            "main",
            "latest",
            "HEAD",
            "7",
            "v3",
            "deadbeef",
            "refs/heads/x",
            "",
            "a b",
            "é",
            "../x",
            "a//b",
            "x.lock",
        ],
    )
    def test_an_ambiguous_branch_or_tag_name_is_refused(self, registry: Registry, name: str) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises(InvalidRef):
            registry.commits.create_branch(TONE, name)
        with pytest.raises(InvalidRef):
            registry.commits.create_tag(TONE, name)

    def test_branches_and_tags_are_listed_with_their_commits(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first, second = (push(registry, lora(seed), TONE).version.digest for seed in (1, 2))
        registry.aliases.move(TONE, "prod", first, was=None)
        registry.commits.create_branch(TONE, "feat/x", at="v1")
        made = registry.commits.create_tag(TONE, "fixed", message="the one we shipped")
        listed = registry.commits.references(TONE)
        assert [(item.name, item.kind, item.digest) for item in listed] == [
            ("main", "head", second),
            ("prod", "alias", first),
            ("feat/x", "branch", first),
            ("fixed", "tag", second),
        ]
        assert (listed[-1], made.message, made.commit) == (made, "the one we shipped", second.short_id)

    def test_a_dropped_branchs_commits_keep_their_ids(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(1), TONE)
        registry.commits.create_branch(TONE, "feat/x")
        draft = commit(registry, files_of(lora(2)), branch="feat/x").commit
        registry.commits.delete_branch(TONE, "feat/x")
        with pytest.raises(RevisionNotFound):
            registry.commits.get(TONE, "feat/x")
        with pytest.raises(RevisionNotFound):
            registry.commits.delete_branch(TONE, "feat/x")
        assert registry.commits.get(TONE, draft.id) == draft
        registry.commits.create_branch(TONE, "feat/x", at=draft.id)
        assert registry.commits.get(TONE, "feat/x") == draft

    def test_main_cannot_be_deleted(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises(PermissionDenied, match="main"):
            registry.commits.delete_branch(TONE, "main")

    def test_a_tag_cannot_be_moved_only_deleted(self, registry: Registry, lora: MakeLora) -> None:
        first = push(registry, lora(1), TONE).version.digest
        registry.commits.create_tag(TONE, "fixed")
        push(registry, lora(2), TONE)
        assert registry.commits.get(TONE, "fixed").digest == first
        with pytest.raises(RevisionNotFound):
            registry.commits.delete_branch(TONE, "fixed")
        registry.commits.delete_tag(TONE, "fixed")
        with pytest.raises(RevisionNotFound):
            registry.commits.delete_tag(TONE, "fixed")

    def test_a_squashed_branch_is_one_commit_and_keeps_its_versions(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first, second = (push(registry, lora(seed), TONE).version.digest for seed in (1, 2))
        squashed = registry.commits.squash(TONE, "main", NOTE)
        assert (squashed.digest, squashed.parent, squashed.number) == (second, None, 2)
        assert registry.commits.list(TONE).items == (squashed,)
        assert registry.commits.get(TONE, "v1").digest == first
        assert push(registry, lora(3), TONE).version.number == 3
        assert [item.number for item in registry.commits.list(TONE).items] == [3, 2]

    def test_only_writers_create_branches_and_tags(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        push(make_registry(ADA), lora(), TONE)
        for identity, error in ((RON, PermissionDenied), (EVE, NotFound)):
            theirs = make_registry(identity)
            for change in (
                lambda: theirs.commits.create_branch(TONE, "draft"),  # noqa: B023
                lambda: theirs.commits.create_tag(TONE, "fixed"),  # noqa: B023
                lambda: theirs.commits.delete_branch(TONE, "draft"),  # noqa: B023
                lambda: theirs.commits.delete_tag(TONE, "fixed"),  # noqa: B023
                lambda: theirs.commits.squash(TONE, "main", NOTE),  # noqa: B023
            ):
                with pytest.raises(error):
                    change()
        assert [item.kind for item in make_registry(RON).commits.references(TONE)] == ["head"]
        with pytest.raises(NotFound):
            make_registry(EVE).commits.references(TONE)

    def test_changes_of_branches_and_tags_are_in_the_history(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        registry.commits.create_branch(TONE, "draft")
        registry.commits.delete_branch(TONE, "draft")
        registry.commits.create_tag(TONE, "fixed")
        kinds = [event.kind for event in registry.adapters.history(TONE, limit=3).items]
        assert kinds == ["tag.created", "branch.deleted", "branch.created"]

    def test_a_renamed_adapter_keeps_its_branches_and_redirects(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        registry.commits.create_branch(TONE, "draft")
        registry.adapters.rename(TONE, VOICE)
        assert registry.adapters.renamed_to(TONE) == VOICE
        assert [item.name for item in registry.commits.references(VOICE)] == ["main", "draft"]
        registry.adapters.rename(VOICE, ALTO)
        assert (
            registry.adapters.renamed_to(TONE),
            registry.adapters.renamed_to(VOICE),
            registry.adapters.renamed_to(ALTO),
        ) == (
            ALTO,
            ALTO,
            None,
        )
        registry.adapters.rename(ALTO, TONE)
        assert (
            registry.adapters.renamed_to(TONE),
            registry.adapters.renamed_to(VOICE),
            registry.adapters.renamed_to(ALTO),
        ) == (
            None,
            TONE,
            TONE,
        )

    def test_a_reused_name_no_longer_redirects(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        registry.adapters.rename(TONE, VOICE)
        registry.adapters.create(TONE, AdapterEdit())
        assert registry.adapters.renamed_to(TONE) is None
        assert registry.commits.get(TONE).digest == EMPTY.digest

    def test_a_deleted_adapter_has_no_redirect(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        registry.adapters.rename(TONE, VOICE)
        registry.adapters.delete(VOICE)
        registry.adapters.create(VOICE, AdapterEdit())
        assert registry.adapters.renamed_to(TONE) is None

    def test_redirects_are_visible_to_readers_of_the_adapter(self, make_registry: MakeRegistry) -> None:
        ada = make_registry(ADA)
        ada.adapters.create(TONE, AdapterEdit())
        ada.adapters.rename(TONE, VOICE)
        assert make_registry(RON).adapters.renamed_to(TONE) == VOICE
        assert make_registry(EVE).adapters.renamed_to(TONE) is None
