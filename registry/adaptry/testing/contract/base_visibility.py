"""Promises about who sees a base: it is private unless an administrator opens it, and does not exist for
others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import NotFound
from adaptry.core.identity import ANONYMOUS, LOCAL, Identity
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.base_info import BaseEdit
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry.testing.contract.fixtures import ADA, EVE, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.samples import tiny_base

OLGA = Identity.with_role("olga", "reader", ("org",))
GLOB = Identity.with_role("glob", "reader", ("or*",))
EVES = AdapterName.parse("evil/tone")


class BaseVisibilityContract(ContractFixtures):
    """Tests who may see a base, and the answers for others."""

    @pytest.fixture
    def hidden(self, registry: Registry, tmp_path: Path) -> BaseRecord:
        """A stored base of the namespace `org`, on which ada and eve have no rights."""
        checkpoint = open_checkpoint(tiny_base(tmp_path / "hidden"))
        register_base(registry, checkpoint, ("org/tiny", "org/again"), store=True, cache=tmp_path / "cache")
        return fingerprint(checkpoint)

    def test_a_new_base_is_private_to_the_namespaces_of_its_names(
        self, make_registry: MakeRegistry, registry: Registry, hidden: BaseRecord
    ) -> None:
        assert registry.bases.get("org/tiny").visibility == "private"
        for member in (OLGA, GLOB):
            assert make_registry(member).bases.get("org/tiny").id == hidden.id
            assert [info.id for info in make_registry(member).bases.list().items] == [hidden.id]

    def test_a_base_with_a_one_word_name_is_private_to_administrators(
        self, make_registry: MakeRegistry, registry: Registry, tmp_path: Path
    ) -> None:
        registry.bases.put(fingerprint(open_checkpoint(tiny_base(tmp_path / "word"))), ("gpt2",))
        assert make_registry(LOCAL).bases.get("gpt2").names == ("gpt2",)
        for member in (OLGA, ADA):
            with pytest.raises(NotFound):
                make_registry(member).bases.get("gpt2")

    @pytest.mark.parametrize("member", [ADA, EVE, ANONYMOUS], ids=["ada", "eve", "anonymous"])
    def test_a_private_base_is_absent_for_everyone_else(
        self, make_registry: MakeRegistry, registry: Registry, hidden: BaseRecord, member: Identity
    ) -> None:
        theirs = make_registry(member)
        entry = registry.bases.get("org/tiny").stored[0]
        asked: list[Callable[[Registry], object]] = [
            lambda it: it.bases.get("org/tiny"),
            lambda it: it.bases.get(str(hidden.id)),
            lambda it: it.bases.get(hidden.id.hex[:12]),
            lambda it: it.bases.record(hidden.id),
            lambda it: b"".join(it.bases.read_file(hidden.id, entry.path)),
            lambda it: it.files.has(hidden.id, entry.sha256),
        ]
        for ask in asked:
            with pytest.raises(NotFound) as refused:
                ask(theirs)
            assert "org/again" not in str(refused.value)  # a name of the base that was not requested
        assert theirs.bases.list().items == ()
        assert theirs.bases.of_architecture(hidden.architecture) == ()

    def test_an_administrator_changes_who_sees_a_base(
        self, make_registry: MakeRegistry, registry: Registry, hidden: BaseRecord
    ) -> None:
        def who_sees() -> list[str]:
            return [who.name for who in (OLGA, ADA, ANONYMOUS) if make_registry(who).bases.list().items != ()]

        seen = [who_sees()]
        for visibility in ("internal", "public", "private"):
            assert registry.bases.edit(hidden.id, BaseEdit(visibility=visibility)).visibility == visibility
            seen.append(who_sees())
        assert seen == [["olga"], ["olga", "ada"], ["olga", "ada", "anonymous"], ["olga"]]

    def test_a_push_by_a_user_who_cannot_see_the_base_is_declared_as_for_an_unknown_base(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, hidden: BaseRecord
    ) -> None:
        pushed = push(make_registry(EVE), lora(hidden=32), EVES)
        assert (pushed.version.base_status, pushed.version.base_id) == ("declared", None)
        assert [found.code for found in pushed.report.findings if found.severity != "notes"] == [
            "base_unknown"
        ]
        assert push(registry, lora(seed=2), TONE).version.base_status == "verified"

    def test_a_base_that_becomes_visible_is_checked_against_the_versions_that_declare_it(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, hidden: BaseRecord
    ) -> None:
        theirs = make_registry(EVE)
        assert push(theirs, lora(), EVES).version.base_status == "declared"
        registry.bases.edit(hidden.id, BaseEdit(visibility="internal"))
        shown = theirs.versions.detail(Ref(EVES))
        assert (shown.version.base_status, shown.version.base_id) == ("verified", hidden.id)
        assert "base_unknown" not in [found.code for found in shown.report.findings]

    def test_readers_who_cannot_see_a_versions_base_get_its_declared_base(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, hidden: BaseRecord
    ) -> None:
        pushed = push(registry, lora(), TONE).version
        assert pushed.base_id == hidden.id
        theirs = make_registry(ADA)
        ref = Ref(TONE)
        shown = [
            theirs.versions.get(ref),
            theirs.versions.detail(ref).version,
            *theirs.versions.list(TONE).items,
            *theirs.versions.search("").items,
        ]
        assert len(shown) == 4
        for version in shown:
            assert (version.base_status, version.base_id) == ("declared", None)
            assert version.base_name == "org/tiny"  # the name in its config
            assert version.digest == pushed.digest
        assert [
            found.code for found in theirs.versions.detail(ref).report.findings if found.severity == "warns"
        ] == ["base_unknown"]
        assert theirs.versions.get(ref).findings == len(theirs.versions.detail(ref).report.findings)

    def test_a_search_by_a_hidden_base_finds_only_versions_that_declare_its_name(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, hidden: BaseRecord
    ) -> None:
        push(registry, lora(), TONE)
        theirs = make_registry(ADA)
        found = {
            key: len(theirs.versions.search(f"base:{key}").items)
            for key in ("org/tiny", "org/again", str(hidden.id))
        }
        assert found == {"org/tiny": 1, "org/again": 0, str(hidden.id): 0}
        assert len(registry.versions.search("base:org/again").items) == 1

    def test_a_search_by_findings_reveals_nothing_about_a_hidden_base(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, hidden: BaseRecord
    ) -> None:
        push(registry, lora(), TONE)
        theirs = make_registry(ADA)
        shown = theirs.versions.get(Ref(TONE)).findings
        for query, count in {
            "finding:base_unknown": (0, 1),
            "-finding:base_unknown": (1, 0),
            "has:finding": (len(registry.versions.detail(Ref(TONE)).report.findings) > 0, 1),
            f"findings={shown}": (registry.versions.get(Ref(TONE)).findings == shown, 1),
        }.items():
            found = tuple(len(one.versions.search(query).items) for one in (registry, theirs))
            assert found == count, query

    def test_history_and_events_do_not_reveal_a_hidden_base(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        push(make_registry(EVE), lora(), EVES)
        before = registry.events.read().seq
        record = fingerprint(open_checkpoint(tiny_base(tmp_path / "late")))
        registry.bases.put(record, ("org/tiny",))
        theirs = make_registry(EVE)
        assert registry.versions.get(Ref(EVES)).base_status == "verified"
        assert theirs.versions.get(Ref(EVES)).base_status == "declared"
        assert theirs.events.read(before).items == ()
        assert "version.rechecked" not in {event.kind for event in theirs.adapters.history(EVES).items}
        assert "version.rechecked" in {event.kind for event in registry.adapters.history(EVES).items}
        assert {event.kind for event in registry.events.read(before).items} == {
            "base.registered",
            "version.rechecked",
        }

    def test_a_public_adapter_does_not_reveal_its_private_base(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, hidden: BaseRecord
    ) -> None:
        push(registry, lora(), TONE)
        registry.adapters.edit(TONE, AdapterEdit(visibility="public"))
        theirs = make_registry(EVE)
        pushed = next(
            event for event in theirs.adapters.history(TONE).items if event.kind == "version.pushed"
        )
        assert not {"base", "base_status"} & pushed.detail.keys()
        assert theirs.versions.get(Ref(TONE)).base_id is None
        ours = next(
            event for event in registry.adapters.history(TONE).items if event.kind == "version.pushed"
        )
        assert ours.detail["base"] == str(hidden.id)

    def test_an_upload_for_a_hidden_base_is_refused(
        self, make_registry: MakeRegistry, registry: Registry, hidden: BaseRecord
    ) -> None:
        entry: FileEntry = registry.bases.get("org/tiny").stored[0]
        for theirs in map(make_registry, (ADA, EVE)):
            with pytest.raises(NotFound):
                theirs.uploads.open(hidden.id, entry.sha256, entry.size)
