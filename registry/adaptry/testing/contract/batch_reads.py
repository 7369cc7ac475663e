"""Promises about reads of several versions at once: the same answers and errors as one read after another."""

from __future__ import annotations

import pytest

from adaptry.adapters.formats import CONFIG
from adaptry.core.digest import Digest
from adaptry.core.errors import FileMissing, Invalid, NotFound, RevisionNotFound, Withdrawn
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, StateChange, VersionInfo
from adaptry.testing.contract.fixtures import (
    ADA,
    EVE,
    RON,
    TONE,
    ContractFixtures,
    MakeLora,
    MakeRegistry,
)

OTHER = AdapterName.parse("acme/other")


class BatchReadsContract(ContractFixtures):
    """`versions.details`, `versions.measured_weights`, `evidence.newest` and `files.readers`."""

    def test_refs_of_every_kind_are_resolved_in_their_order(self, registry: Registry, lora: MakeLora) -> None:
        first, second, other = push_three(registry, lora)
        registry.aliases.move(TONE, "prod", first.digest, None)
        texts = (
            f"{TONE}@2",
            str(OTHER),
            f"{TONE}@prod",
            f"{TONE}@{second.digest}",
            str(TONE),
            f"{TONE}@2",
        )
        refs = [Ref.parse(text) for text in texts]
        found = registry.versions.details(refs)
        assert [one.version.digest for one in found] == [
            one.digest for one in (second, other, first, second, second, second)
        ]
        assert found == tuple(registry.versions.detail(ref) for ref in refs)
        assert registry.versions.details([]) == ()

    def test_one_unknown_ref_refuses_all_of_them(self, registry: Registry, lora: MakeLora) -> None:
        push_three(registry, lora)
        for text in (f"{TONE}@9", f"{TONE}@nobody", "acme/absent"):
            refs = [Ref(TONE), Ref.parse(text)]
            with pytest.raises(NotFound):
                registry.versions.details(refs)
            with pytest.raises(NotFound):
                registry.versions.measured_weights(refs)
            with pytest.raises(NotFound):
                registry.evidence.newest(refs, 10)

    def test_evidence_of_several_versions_is_what_each_lists(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push_three(registry, lora)
        refs = [Ref.parse(text) for text in (f"{TONE}@2", f"{TONE}@1", str(OTHER), f"{TONE}@2")]
        for limit in (1, 50):
            found = registry.evidence.newest(refs, limit)
            assert found == tuple(registry.evidence.list(ref, limit=limit).items for ref in refs)
        assert [len(each) for each in found] == [2, 1, 0, 2]

    def test_unmeasured_weights_have_no_figures(self, registry: Registry, lora: MakeLora) -> None:
        push_three(registry, lora)
        found = registry.versions.measured_weights([Ref(TONE), Ref(OTHER)])
        assert [(one.statistics, one.distance) for one in found] == [(None, None)] * 2

    def test_readers_give_the_bytes_and_the_errors_of_single_reads(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first, second, _ = push_three(registry, lora)
        nothing = Digest.of(b"nothing")
        readers = registry.files.readers(
            [(TONE, first.digest), (TONE, second.digest), (TONE, nothing), (OTHER, first.digest)]
        )
        for read, version in zip(readers, (first, second), strict=False):
            whole = b"".join(registry.files.read(TONE, version.digest, CONFIG))
            assert b"".join(read(CONFIG, 0)) == whole
            assert b"".join(read(CONFIG, 7)) == whole[7:]
            with pytest.raises(FileMissing):
                b"".join(read("nothing.json", 0))
            with pytest.raises(Invalid):
                b"".join(read(CONFIG, len(whole) + 1))
        for read in readers[2:]:
            with pytest.raises(RevisionNotFound):
                b"".join(read(CONFIG, 0))

    def test_files_of_a_revoked_version_are_withheld_from_readers_of_several(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second, _ = push_three(ada, lora)
        ada.versions.set_state(TONE, first.digest, StateChange(state="revoked", reason="a leak"), 0)
        withheld, given = make_registry(RON).files.readers([(TONE, first.digest), (TONE, second.digest)])
        with pytest.raises(Withdrawn):
            b"".join(withheld(CONFIG, 0))
        assert b"".join(given(CONFIG, 0))
        (hidden,) = make_registry(EVE).files.readers([(TONE, second.digest)])
        with pytest.raises(NotFound, match="no adapter"):
            b"".join(hidden(CONFIG, 0))


def push_three(registry: Registry, lora: MakeLora) -> tuple[VersionInfo, VersionInfo, VersionInfo]:
    """Pushes two versions of `TONE`, with one and two metrics, and one version of `OTHER`."""
    first = push(registry, lora(seed=1), TONE, options=PushOptions(metrics={"f1": 0.1}))
    second = push(registry, lora(seed=2), TONE, options=PushOptions(metrics={"f1": 0.2, "loss": 2.0}))
    other = push(registry, lora(seed=3), OTHER)
    return first.version, second.version, other.version
