"""Promises about bases: they are identified by content and have unique names; registering one updates
versions that declared it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.identity import ANONYMOUS
from adaptry.core.manifest import BaseClaim, FileEntry
from adaptry.core.refs import Ref
from adaptry.operations.base_recognition import RecognisedBase
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.operations.transfer.drafts import push_draft
from adaptry.registry.base_info import BaseEdit
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.interface import Registry
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import PushOptions
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.samples import tiny_base


class BasesContract(ContractFixtures):
    """`bases.put` to `bases.read_file`."""

    @pytest.fixture
    def tiny(self, tmp_path: Path) -> BaseRecord:
        return fingerprint(open_checkpoint(tiny_base(tmp_path / "tiny")))

    @pytest.fixture
    def other(self, tmp_path: Path) -> BaseRecord:
        return fingerprint(open_checkpoint(tiny_base(tmp_path / "other", seed=5)))

    def test_a_base_is_found_by_name_by_id_or_by_the_beginning_of_its_id(
        self, registry: Registry, tiny: BaseRecord
    ) -> None:
        info = registry.bases.put(tiny, ("org/tiny",))
        for key in ("org/tiny", str(tiny.id), tiny.id.hex, tiny.id.hex[:12], f"sha256:{tiny.id.hex[:20]}"):
            assert registry.bases.get(key) == info
        assert (info.model_type, info.parameters, info.dtypes) == ("llama", tiny.parameters, ("F32",))
        assert registry.bases.record(tiny.id) == tiny

    def test_a_new_name_of_a_base_differs_from_every_other_in_more_than_case(
        self, registry: Registry, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        registry.bases.put(tiny, ("org/Tiny",))
        with pytest.raises(Conflict, match="differs only in case from org/Tiny"):
            registry.bases.put(other, ("org/tiny",))
        assert registry.bases.put(tiny, ("org/tiny", "ORG/TINY")).names == ("org/Tiny",)

    def test_an_unknown_base_is_not_found(self, registry: Registry) -> None:
        for key in ("org/none", "0" * 64, "sha256:" + "0" * 64, "abc", "", "x" * 100_000):
            with pytest.raises(NotFound):
                registry.bases.get(key)
        with pytest.raises(NotFound):
            registry.bases.record(Digest.of(b""))

    def test_a_registered_base_gains_names_and_evidence(self, registry: Registry, tiny: BaseRecord) -> None:
        registry.bases.put(tiny, ("org/tiny",))
        richer = tiny.model_copy(update={"tokenizer": Digest.of(b"tokens")})
        info = registry.bases.put(richer, ("org/tiny", "mirror/tiny"))
        assert info.names == ("mirror/tiny", "org/tiny")
        assert info.tokenizer == Digest.of(b"tokens")
        assert registry.bases.put(tiny).tokenizer == Digest.of(b"tokens")

    def test_a_base_record_with_a_wrong_id_is_refused(
        self, registry: Registry, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        forged = (
            tiny.model_copy(update={"id": other.id}),
            tiny.model_copy(update={"architecture": Digest.of(b"")}),
            tiny.model_copy(
                update={"sketches": {**tiny.sketches, **dict([next(iter(other.sketches.items()))])}}
            ),
            tiny.model_copy(update={"sketches": {}}),
        )
        for record in forged:
            with pytest.raises(Invalid, match="adaptry base add"):
                registry.bases.put(record)
        with pytest.raises(NotFound):
            registry.bases.get(str(tiny.id))

    def test_a_name_belongs_to_one_base(
        self, registry: Registry, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        registry.bases.put(tiny, ("org/tiny",))
        with pytest.raises(Conflict, match="already names another base"):
            registry.bases.put(other, ("org/tiny",))
        assert [info.id for info in registry.bases.list().items] == [tiny.id]

    @pytest.mark.parametrize("name", ["", " x", "sha256:abc", "0123456789abcdef", "a\nb", "x" * 513])
    def test_a_misleading_base_name_is_refused(self, registry: Registry, tiny: BaseRecord, name: str) -> None:
        with pytest.raises(Invalid):
            registry.bases.put(tiny, (name,))

    def test_bases_are_listed_newest_first_and_by_architecture(
        self, registry: Registry, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        registry.bases.put(tiny)
        registry.bases.put(other)
        first = registry.bases.list(limit=1)
        second = registry.bases.list(cursor=first.next, limit=1)
        assert [info.id for info in (*first.items, *second.items)] == [other.id, tiny.id]
        assert {info.id for info in registry.bases.of_architecture(tiny.architecture)} == {tiny.id, other.id}
        assert registry.bases.of_architecture(Digest.of(b"")) == ()

    def test_an_adapter_is_verified_when_its_base_is_registered(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        assert push(registry, lora(), TONE).version.base_status == "declared"
        registry.bases.put(tiny, ("org/tiny",))
        version = registry.versions.get(Ref(TONE))
        assert (version.base_status, version.base_id) == ("verified", tiny.id)
        assert registry.adapters.history(TONE).items[0].kind == "version.rechecked"
        assert [found.digest for found in registry.versions.search(f"base:{tiny.id}").items] == [
            version.digest
        ]
        assert registry.bases.get("org/tiny").adapters == 1

    def test_an_adapter_that_does_not_fit_its_new_base_stays_declared(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        push(registry, lora(hidden=32), TONE)
        registry.bases.put(tiny, ("org/tiny",))
        detail = registry.versions.detail(Ref(TONE))
        assert detail.version.base_status == "declared"
        assert detail.report.is_blocked

    def test_a_version_whose_config_has_a_path_is_bound_to_its_base(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        before = push(registry, lora(base_name="/gone/llama"), TONE).version
        registry.bases.put(tiny, ("org/tiny",))
        bound = registry.versions.bind_base(TONE, before.digest, tiny.id).version
        assert (bound.digest, bound.number) == (before.digest, before.number)
        assert (bound.base_status, bound.base_id, bound.base_name) == ("verified", tiny.id, "org/tiny")
        assert bound == registry.versions.get(Ref(TONE))
        assert registry.versions.bind_base(TONE, before.digest, tiny.id).version == bound
        kinds = [event.kind for event in registry.adapters.history(TONE).items]
        assert kinds.count("version.bound") == 1
        for nobody, error in ((RON, PermissionDenied), (EVE, NotFound)):
            with pytest.raises(error):
                make_registry(nobody).versions.bind_base(TONE, before.digest, tiny.id)

    def test_files_of_a_bound_version_with_a_claim_of_its_base_are_that_version(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        """The first push claims no base, like a commit of a Hub client; the later ones recognise the base."""
        folder = lora(base_name="/gone/llama")
        first = push(registry, folder, TONE).version
        registry.bases.put(tiny, ("org/tiny",))
        registry.bases.put(other, ("org/other",))
        registry.versions.bind_base(TONE, first.digest, tiny.id)
        again = push(registry, folder, TONE, base=BaseClaim(id=tiny.id))
        assert (again.version.digest, again.is_new) == (first.digest, False)
        assert push(registry, folder, TONE, base=BaseClaim(id=other.id)).is_new

    def test_a_push_that_recognises_the_base_binds_the_version_that_a_hub_client_pushed(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        """The base may not be registered yet: the version then waits for it, as if it had claimed it."""
        folder, claim = lora(base_name="/gone/llama"), BaseClaim(id=tiny.id)
        first = push(registry, folder, TONE).version
        waiting = push(registry, folder, TONE, base=claim)
        assert (waiting.version.digest, waiting.is_new) == (first.digest, False)
        assert (waiting.version.base_status, waiting.version.base_id) == ("declared", tiny.id)
        registry.bases.put(tiny, ("org/tiny",))
        registry.bases.put(other, ("org/other",))
        assert registry.versions.get(Ref(TONE)).base_status == "verified"
        assert push(registry, folder, TONE, base=BaseClaim(id=other.id)).is_new

        second = push(registry, lora(2, base_name="/gone/llama"), TONE).version
        bound = push(registry, lora(2, base_name="/gone/llama"), TONE, base=claim)
        assert (bound.version.digest, bound.is_new) == (second.digest, False)
        assert (bound.version.base_status, bound.version.base_name) == ("verified", "org/tiny")
        kinds = [event.kind for event in registry.adapters.history(TONE).items]
        assert kinds.count("version.bound") == 2

    def test_a_push_that_claims_no_base_or_the_name_in_the_config_returns_the_version_with_these_files(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        """Such pushes come from a machine without the base, or follow an upload by a Hub client, which claims
        no base.
        """
        elsewhere = lora(base_name="/gone/llama")
        first = push(registry, elsewhere, TONE, base=BaseClaim(id=tiny.id)).version
        assert push(registry, elsewhere, TONE).version.digest == first.digest
        named = push(registry, lora(2), TONE, base=RecognisedBase(None)).version
        assert push(registry, lora(2), TONE).version.digest == named.digest
        registry.bases.put(tiny, ("org/tiny",))
        assert push(registry, lora(2), TONE).version.digest == named.digest

    def test_a_push_names_only_the_model_in_the_folder_of_the_config(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord, other: BaseRecord, tmp_path: Path
    ) -> None:
        """The two models have equal shapes. A draft is judged like a version."""
        registry.bases.put(tiny, ("org/tiny",))
        registry.bases.put(other, ("org/other",))
        adapter = lora(base_name=str(tmp_path / "tiny"))
        for given in ("org/other", tmp_path / "other", BaseClaim(id=other.id)):
            with pytest.raises(CheckFailed, match="is another model: the weights differ in"):
                push(registry, adapter, TONE, base=given)
            with pytest.raises(CheckFailed, match="is another model: the weights differ in"):
                push_draft(registry, adapter, TONE, "draft", CommitNote(title="a draft"), base=given)
        with pytest.raises(NotFound):
            registry.adapters.get(TONE)
        assert push(registry, adapter, TONE, base="org/tiny").version.base_id == tiny.id
        forced = push(
            registry, adapter, TONE, base="org/other", options=PushOptions(force_reason="to look into it")
        )
        assert forced.version.base_id == other.id

    def test_a_push_does_not_bind_a_version_that_does_not_fit_the_base(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        wide = lora(base_name="/gone/llama", hidden=32)
        first = push(registry, wide, TONE).version
        registry.bases.put(tiny, ("org/tiny",))
        with pytest.raises(CheckFailed, match="does not fit org/tiny"):
            push(registry, wide, TONE, base=BaseClaim(id=tiny.id))
        assert registry.versions.get(Ref(TONE)) == first

    def test_a_push_that_is_refused_binds_no_version(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        """It is refused by the policy of its alias, or because a branch has the alias's name."""
        folder, claim = lora(base_name="/gone/llama"), BaseClaim(id=tiny.id)
        first = push(registry, folder, TONE).version
        text = 'alias: prod\nrequire:\n  - metric("accuracy") > 0.9\n'
        registry.policies.set(PolicyRequest(scope=str(TONE), text=text))
        registry.commits.create_branch(TONE, "draft")
        for alias, error in (("prod", CheckFailed), ("draft", Conflict)):
            with pytest.raises(error):
                push(registry, folder, TONE, base=claim, options=PushOptions(alias=alias))
        assert registry.versions.get(Ref(TONE)) == first
        assert _bindings(registry) == 0

        options = PushOptions(alias="prod", metrics={"accuracy": 0.95})
        bound = push(registry, folder, TONE, base=claim, options=options).version
        assert (bound.digest, bound.base_id, bound.aliases) == (first.digest, tiny.id, ("prod",))
        assert _bindings(registry) == 1

    def test_a_policy_judges_the_version_with_the_base_that_the_push_recognises(
        self, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        """TGI refuses an adapter of only some layers of its base, and without the base, its layers are
        unknown.
        """
        deeper = fingerprint(open_checkpoint(tiny_base(tmp_path / "deeper", layers=4)))
        registry.bases.put(deeper, ("org/deeper",))
        folder, options = lora(base_name="/gone/llama"), PushOptions(alias="prod")
        first = push(registry, folder, TONE).version
        registry.policies.set(
            PolicyRequest(scope=str(TONE), text="alias: prod\nrequire: ['fits(\"tgi\")']\n")
        )
        with pytest.raises(CheckFailed, match="with its base"):
            push(registry, folder, TONE, base=BaseClaim(id=deeper.id), options=options)
        assert registry.versions.get(Ref(TONE)) == first
        assert push(registry, folder, TONE, options=options).version.aliases == ("prod",)

    @pytest.mark.parametrize("is_registered", [True, False])
    def test_a_push_that_recognises_the_base_repairs_a_damaged_version_and_binds_it(
        self,
        registry: Registry,
        stores: LocalRegistry,
        lora: MakeLora,
        tiny: BaseRecord,
        is_registered: bool,
    ) -> None:
        folder = lora(base_name="/gone/llama")
        first = push(registry, folder, TONE).version
        if is_registered:
            registry.bases.put(tiny, ("org/tiny",))
        for entry in registry.versions.detail(Ref(TONE)).manifest.files:
            stores.blobs.delete(entry.sha256)
        assert verify(stores.catalog, stores.blobs)
        assert registry.versions.get(Ref(TONE)).is_damaged

        bound = push(registry, folder, TONE, base=BaseClaim(id=tiny.id)).version
        assert (bound.digest, bound.base_id, bound.is_damaged) == (first.digest, tiny.id, False)
        assert bound.base_status == ("verified" if is_registered else "declared")
        assert verify(stores.catalog, stores.blobs) == ()

    def test_a_binding_may_be_corrected_and_a_declared_base_may_not(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord, other: BaseRecord
    ) -> None:
        registry.bases.put(tiny, ("org/tiny",))
        registry.bases.put(other, ("org/other",))
        bound = push(registry, lora(base_name="/gone/llama"), TONE).version.digest
        for base in (other, tiny):
            assert registry.versions.bind_base(TONE, bound, base.id).version.base_id == base.id
        named = push(registry, lora(2), TONE).version.digest
        by_content = push(registry, lora(3), TONE, base=BaseClaim(id=other.id)).version.digest
        for digest, base in ((named, other), (by_content, tiny)):
            with pytest.raises(Conflict, match="declares another base"):
                registry.versions.bind_base(TONE, digest, base.id)
        with pytest.raises(NotFound, match="no base"):
            registry.versions.bind_base(TONE, bound, Digest.of(b""))
        wide = push(registry, lora(4, base_name="/gone/llama", hidden=32), TONE).version.digest
        with pytest.raises(CheckFailed, match="does not fit org/tiny"):
            registry.versions.bind_base(TONE, wide, tiny.id)

    def test_an_adapter_of_a_known_base_is_verified_at_once(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord
    ) -> None:
        registry.bases.put(tiny, ("org/tiny", "mirror/tiny"))
        version = push(registry, lora(), TONE).version
        assert (version.base_status, version.base_id, version.base_name) == ("verified", tiny.id, "org/tiny")
        assert len(registry.versions.search("base:mirror/tiny").items) == 1

    def test_stored_weights_read_back(self, registry: Registry, tmp_path: Path) -> None:
        folder = tiny_base(tmp_path / "kept")
        info = register_base(
            registry, open_checkpoint(folder), ("org/tiny",), store=True, cache=tmp_path / "cache"
        )
        assert info.is_stored
        whole = (folder / "model.safetensors").read_bytes()
        assert b"".join(registry.bases.read_file(info.id, "model.safetensors")) == whole
        assert b"".join(registry.bases.read_file(info.id, "model.safetensors", 9)) == whole[9:]
        with pytest.raises(NotFound):
            registry.bases.read_file(info.id, "other.safetensors")

    def test_a_base_cannot_claim_files_that_were_not_uploaded(
        self, registry: Registry, tiny: BaseRecord
    ) -> None:
        registry.bases.put(tiny)
        missing = FileEntry(path="model.safetensors", size=3, sha256=Digest.of(b"abc"))
        with pytest.raises(NotFound, match=r"model\.safetensors"):
            registry.bases.store(tiny.id, (missing,))

    def test_only_administrators_change_bases_and_only_members_read_internal_ones(
        self, make_registry: MakeRegistry, registry: Registry, tiny: BaseRecord
    ) -> None:
        registry.bases.put(tiny, ("org/tiny",))
        registry.bases.edit(tiny.id, BaseEdit(visibility="internal"))
        for member in (ADA, RON):
            assert make_registry(member).bases.get("org/tiny").id == tiny.id
            with pytest.raises(PermissionDenied):
                make_registry(member).bases.put(tiny, ("mine",))
            with pytest.raises(PermissionDenied):
                make_registry(member).bases.edit(tiny.id, BaseEdit(visibility="public"))
        nobody = make_registry(ANONYMOUS)
        assert nobody.bases.list().items == ()
        for ask in (lambda: nobody.bases.get("org/tiny"), lambda: nobody.bases.record(tiny.id)):
            with pytest.raises(NotFound):
                ask()


def _bindings(registry: Registry) -> int:
    """The number of times that a version of the adapter was bound to a base."""
    return [event.kind for event in registry.adapters.history(TONE).items].count("version.bound")
