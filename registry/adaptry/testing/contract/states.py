"""Promises about states: they change only from the state that the caller saw, with a reason, and mean the
same everywhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.formats import CONFIG
from adaptry.core.errors import CheckFailed, Conflict, NotFound, PermissionDenied, RevisionNotFound, Withdrawn
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.lifecycle import STATE_RULES, WITHDRAWN, State
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import copy, open_revision, pull, push
from adaptry.operations.version_state import change_state
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange, VersionInfo
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

FIRST = Ref.parse("acme/tone@1")
ANN = Identity.with_role("ann", "admin", ("acme",))
BOB = Identity.with_role("bob", "admin", ("other",))
READABLE_BY: dict[State, set[str]] = {
    "active": {"ada", "ann", "ron", "local"},
    "deprecated": {"ada", "ann", "ron", "local"},
    "yanked": {"ada", "ann", "ron", "local"},
    "quarantined": {"ada", "ann", "local"},
    "revoked": {"ann", "local"},
}
"""Which of a namespace's writer, administrator and reader may read the files."""


class StatesContract(ContractFixtures):
    """`versions.set_state`, and their effect on the other methods."""

    def test_a_state_has_author_reason_and_replacement(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        registry = make_registry(ADA)
        first, _ = push_two(registry, lora)
        registry.aliases.move(TONE, "prod", first.digest, was=None)
        change = StateChange(state="deprecated", reason="it stutters", successor="acme/tone@2")
        version = registry.versions.set_state(TONE, first.digest, change, was=0)
        assert (version.state, version.number, version.aliases) == ("deprecated", 1, ("prod",))
        last = version.last_state_change
        assert last is not None
        assert (last.generation, last.reason) == (1, "it stutters")
        assert (last.successor, last.by) == ("acme/tone@2", "ada")
        assert registry.versions.get(FIRST) == version
        event = registry.adapters.history(TONE).items[0]
        assert (event.kind, event.by, event.number) == ("version.deprecated", "ada", 1)
        assert event.detail == {
            "was": "active",
            "reason": "it stutters",
            "successor": "acme/tone@2",
            "aliases": "prod",
            "generation": "1",
            "digest": str(first.digest),
        }

    def test_a_state_changes_only_from_the_generation_that_was_seen(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first, _ = push_two(registry, lora)
        registry.versions.set_state(
            TONE, first.digest, StateChange(state="yanked", reason="wrong data"), was=0
        )
        with pytest.raises(Conflict, match=r"it is yanked .*; look again and retry"):
            registry.versions.set_state(
                TONE, first.digest, StateChange(state="revoked", reason="leaked"), was=0
            )
        revoked = registry.versions.set_state(
            TONE, first.digest, StateChange(state="revoked", reason="leaked"), was=1
        )
        assert (revoked.state, revoked.state_generation) == ("revoked", 2)

    def test_a_repeated_change_has_no_effect(self, registry: Registry, lora: MakeLora) -> None:
        first, _ = push_two(registry, lora)
        change = StateChange(state="yanked", reason="wrong data")
        once = registry.versions.set_state(TONE, first.digest, change, was=0)
        seen = registry.adapters.history(TONE)
        assert registry.versions.set_state(TONE, first.digest, change, was=0) == once
        assert registry.adapters.history(TONE) == seen
        active = registry.versions.set_state(
            TONE, registry.versions.get(Ref(TONE)).digest, StateChange(state="active", reason="fine"), was=0
        )
        assert active.last_state_change is None

    def test_a_new_reason_increments_the_generation(self, registry: Registry, lora: MakeLora) -> None:
        first, _ = push_two(registry, lora)
        registry.versions.set_state(
            TONE, first.digest, StateChange(state="yanked", reason="wrong data"), was=0
        )
        again = registry.versions.set_state(
            TONE, first.digest, StateChange(state="yanked", reason="and rude"), was=1
        )
        assert again.last_state_change is not None
        assert (again.last_state_change.generation, again.last_state_change.reason) == (2, "and rude")

    def test_a_restored_version_is_unchanged(self, registry: Registry, lora: MakeLora) -> None:
        _, second = push_two(registry, lora)
        put(registry, "revoked", number=2)
        assert registry.versions.get(Ref(TONE)).number == 1
        restored = put(registry, "active", number=2)
        assert (restored.state, restored.state_generation) == ("active", 2)
        assert registry.versions.get(Ref(TONE)).digest == second.digest
        assert registry.adapters.history(TONE).items[0].kind == "version.restored"
        registry.aliases.move(TONE, "prod", second.digest, was=None)
        assert b"".join(registry.files.read(TONE, second.digest, CONFIG))

    @pytest.mark.parametrize("state", [state for state in STATE_RULES if state != "active"])
    def test_a_bare_name_means_the_newest_active_version(
        self, registry: Registry, lora: MakeLora, state: State
    ) -> None:
        push_two(registry, lora)
        put(registry, state, number=2)
        assert registry.versions.get(Ref(TONE)).number == registry.adapters.get(TONE).latest == 1
        put(registry, state, number=1)
        assert registry.adapters.get(TONE).latest is None
        reason = f"acme/tone has no active version: acme/tone@2 is {state}: .*by .*adaptry ls acme/tone"
        with pytest.raises(RevisionNotFound, match=reason):
            registry.versions.get(Ref(TONE))

    def test_a_bare_name_without_any_version_has_a_hint(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises(RevisionNotFound, match="has no version yet; push one"):
            registry.versions.get(Ref(TONE))

    @pytest.mark.parametrize("state", STATE_RULES)
    def test_refs_other_than_the_bare_name_ignore_the_state(
        self, registry: Registry, lora: MakeLora, state: State
    ) -> None:
        first, _ = push_two(registry, lora)
        registry.aliases.move(TONE, "prod", first.digest, was=None)
        put(registry, state)
        for text in ("@1", "@prod", f"@{first.digest}"):
            found = registry.versions.get(Ref.parse(f"acme/tone{text}"))
            assert (found.number, found.state) == (1, state)
        assert [(one.number, one.state) for one in registry.versions.list(TONE).items][1] == (1, state)

    @pytest.mark.parametrize("state", STATE_RULES)
    def test_an_alias_moves_only_to_usable_versions(
        self, registry: Registry, lora: MakeLora, state: State
    ) -> None:
        first, _ = push_two(registry, lora)
        put(registry, state)
        if STATE_RULES[state].allows_aliases:
            assert registry.aliases.move(TONE, "prod", first.digest, was=None).number == 1
            return
        with pytest.raises(Conflict, match=f"version 1 is {state}"):
            registry.aliases.move(TONE, "prod", first.digest, was=None)
        with pytest.raises(Conflict, match=f"version 1 is {state}"):
            push(registry, lora(1), TONE, options=PushOptions(alias="prod"))

    def test_a_search_without_a_state_finds_usable_versions(self, registry: Registry, lora: MakeLora) -> None:
        for seed, state in enumerate(STATE_RULES, start=1):
            push(registry, lora(seed), TONE)
            put(registry, state, number=seed)

        def found(query: str) -> list[State]:
            return [one.state for one in registry.versions.search(query).items]

        assert found("") == found("method:lora") == ["deprecated", "active"]
        assert found("-state:deprecated") == ["active"]
        assert found("state:*") == [*reversed(tuple(STATE_RULES))]
        assert {state: found(f"state:{state}") for state in STATE_RULES} == {
            state: [state] for state in STATE_RULES
        }

    @pytest.mark.parametrize("state", STATE_RULES)
    def test_the_state_determines_who_may_read_files(
        self, make_registry: MakeRegistry, lora: MakeLora, state: State
    ) -> None:
        first, _ = push_two(make_registry(LOCAL), lora)
        put(make_registry(LOCAL), state)
        given = set()
        for who in (ADA, ANN, RON, LOCAL):
            try:
                if b"".join(make_registry(who).files.read(TONE, first.digest, CONFIG)):
                    given.add(who.name)
            except Withdrawn as error:
                assert f"acme/tone@1 is {state}: for a test" in error.message
            assert make_registry(who).versions.detail(FIRST).version.state == state
        assert given == READABLE_BY[state]

    @pytest.mark.parametrize("state", WITHDRAWN)
    def test_a_commit_with_the_same_weights_as_a_withdrawn_version_is_withheld(
        self, make_registry: MakeRegistry, lora: MakeLora, state: State
    ) -> None:
        registry = make_registry(ADA)
        first, _ = push_two(registry, lora)
        registry.commits.create_branch(TONE, "dev", str(first.digest.short_id))
        tree = registry.commits.tree(TONE, first.digest)
        fewer = tree.model_copy(update={"parents": (), "provenance": {"note": "another tree"}})
        made = registry.commits.put(TONE, "dev", fewer.to_bytes(), CommitNote(title="Beside")).commit
        assert made.carries == 1
        put(registry, state)
        with pytest.raises(Withdrawn):
            b"".join(make_registry(RON).files.read(TONE, made.digest, CONFIG))

    @pytest.mark.parametrize("state", WITHDRAWN)
    def test_nothing_is_derived_from_a_withdrawn_version(
        self, registry: Registry, lora: MakeLora, state: State, tmp_path: Path
    ) -> None:
        push_two(registry, lora)
        open_revision(registry, FIRST, tmp_path / "cache")
        put(registry, state)
        for take in (
            lambda: pull(registry, FIRST, tmp_path / "pulled"),
            lambda: open_revision(registry, FIRST, tmp_path / "cache"),
            lambda: copy(registry, FIRST, registry, AdapterName.parse("acme/copy")),
        ):
            with pytest.raises(Withdrawn, match=f"acme/tone@1 is {state}: for a test"):
                take()
        pulled = pull(registry, FIRST, tmp_path / "pulled", include_withdrawn=True)
        assert (pulled.state, (tmp_path / "pulled" / CONFIG).is_file()) == (state, True)

    def test_revoked_weights_cannot_be_pushed_again_in_their_namespace(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push_two(registry, lora)
        put(registry, "revoked")
        same = lora(1, base_name="org/other")
        for name in ("acme/tone", "acme/other"):
            with pytest.raises(CheckFailed, match="those of acme/tone@1, and acme/tone@1 is revoked"):
                push(registry, same, AdapterName.parse(name), options=PushOptions(force_reason="again"))
        assert push(registry, same, AdapterName.parse("elsewhere/other")).is_new
        again = push(registry, lora(1), TONE)
        assert (again.is_new, again.version.state) == (False, "revoked")
        put(registry, "active")
        assert push(registry, same, AdapterName.parse("acme/other")).is_new

    def test_writers_may_recall_and_only_administrators_may_restore(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push_two(make_registry(ADA), lora)
        put(make_registry(ADA), "revoked")
        for state in ("active", "quarantined"):
            with pytest.raises(PermissionDenied, match="owner"):
                put(make_registry(ADA), state)
        with pytest.raises(NotFound):
            put(make_registry(BOB), "active")
        assert put(make_registry(ANN), "active").state == "active"

    def test_only_writers_change_a_state(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        change = StateChange(state="yanked", reason="for a test")
        with pytest.raises(PermissionDenied):
            make_registry(RON).versions.set_state(TONE, first.digest, change, was=0)
        with pytest.raises(NotFound):
            make_registry(EVE).versions.set_state(TONE, first.digest, change, was=0)

    def test_a_replacement_must_be_a_usable_version(self, registry: Registry, lora: MakeLora) -> None:
        first, _ = push_two(registry, lora)

        def name(successor: str) -> VersionInfo:
            change = StateChange(state="deprecated", reason="for a test", successor=successor)
            return registry.versions.set_state(TONE, first.digest, change, was=0)

        with pytest.raises(Conflict, match="its own successor"):
            name("acme/tone@1")
        with pytest.raises(NotFound):
            name("acme/tone@7")
        put(registry, "yanked", number=2)
        with pytest.raises(Conflict, match="acme/tone@2 is yanked"):
            name("acme/tone@2")
        assert registry.versions.get(FIRST).last_state_change is None

    def test_only_versions_have_a_state(self, registry: Registry, lora: MakeLora) -> None:
        push_two(registry, lora)
        empty = registry.commits.list(TONE).items[-1].digest
        with pytest.raises(NotFound):
            registry.versions.set_state(TONE, empty, StateChange(state="yanked", reason="for a test"), was=0)


def push_two(registry: Registry, lora: MakeLora) -> list[VersionInfo]:
    """Two versions of one adapter."""
    return [push(registry, lora(seed), TONE).version for seed in (1, 2)]


def put(registry: Registry, state: State, number: int = 1) -> VersionInfo:
    ref = Ref.parse(f"acme/tone@{number}")
    return change_state(registry, ref, StateChange(state=state, reason="for a test")).version
