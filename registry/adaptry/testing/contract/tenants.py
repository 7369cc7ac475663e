"""The promise about tenants: no method reveals a private adapter to callers who may not read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from adaptry.adapters.formats import CONFIG, WEIGHTS
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, NotFound, PermissionDenied
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.registry.rollouts import RolloutChange, RolloutPlan
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

ABSENT = AdapterName.parse("acme/absent")
Ask = Callable[[Registry, AdapterName, Digest], object]

_EVIDENCE = EvidenceFile(
    digest=Digest.of(b"{}"), format="wandb-summary", values=(EvidenceValue(metric="f1", value=0.5),)
)

READS: Mapping[str, Ask] = {
    "adapter": lambda registry, name, digest: registry.adapters.get(name),
    "has_file": lambda registry, name, digest: registry.files.has(name, digest),
    "read_file": lambda registry, name, digest: b"".join(registry.files.read(name, digest, CONFIG)),
    "version": lambda registry, name, digest: registry.versions.get(Ref(name)),
    "detail": lambda registry, name, digest: registry.versions.detail(Ref(name)),
    "details": lambda registry, name, digest: registry.versions.details([Ref(name)]),
    "measured_weights": lambda registry, name, digest: registry.versions.measured_weights([Ref(name)]),
    "readers": lambda registry, name, digest: [
        b"".join(read(CONFIG, 0)) for read in registry.files.readers([(name, digest)])
    ],
    "newest_evidence": lambda registry, name, digest: registry.evidence.newest([Ref(name)], 5),
    "versions": lambda registry, name, digest: registry.versions.list(name),
    "inspect_tensors": lambda registry, name, digest: registry.versions.inspect_tensors(Ref(name)),
    "weight_statistics": lambda registry, name, digest: registry.versions.weight_statistics(Ref(name)),
    "weight_distance": lambda registry, name, digest: registry.versions.weight_distance(Ref(name), Ref(name)),
    "count_download": lambda registry, name, digest: registry.versions.count_download(Ref(name)),
    "aliases": lambda registry, name, digest: registry.aliases.list(name),
    "history": lambda registry, name, digest: registry.adapters.history(name),
    "metrics": lambda registry, name, digest: registry.metrics.list(Ref(name)),
    "evidence": lambda registry, name, digest: registry.evidence.list(Ref(name)),
    "policies": lambda registry, name, digest: registry.policies.list(str(name)),
    "policy_history": lambda registry, name, digest: registry.policies.history(str(name), "prod"),
    "evaluate": lambda registry, name, digest: registry.policies.evaluate(name, "prod", digest),
    "approvals": lambda registry, name, digest: registry.policies.approvals(name, "prod"),
    "promotions": lambda registry, name, digest: registry.policies.promotions(name),
    "residents": lambda registry, name, digest: registry.workers.residents(Ref(name)),
    "resident_summary": lambda registry, name, digest: registry.workers.resident_summary(Ref(name)),
    "rollouts": lambda registry, name, digest: registry.rollouts.list(name),
}
MEASURED = frozenset(["weight_statistics", "weight_distance"])
"""Reads of figures that a job must have stored."""
WRITES: Mapping[str, Ask] = {
    "edit_adapter": lambda registry, name, digest: registry.adapters.edit(name, AdapterEdit(description="x")),
    "rename_adapter": lambda registry, name, digest: registry.adapters.rename(
        name, AdapterName.parse("evil/taken")
    ),
    "delete_adapter": lambda registry, name, digest: registry.adapters.delete(name),
    "set_state": lambda registry, name, digest: registry.versions.set_state(
        name, digest, StateChange(state="yanked", reason="for a test"), was=0
    ),
    "move_alias": lambda registry, name, digest: registry.aliases.move(name, "prod", digest, was=None),
    "remove_alias": lambda registry, name, digest: registry.aliases.remove(name, "prod", was=1),
    "log_metrics": lambda registry, name, digest: registry.metrics.log(Ref(name), {"accuracy": 1.0}),
    "add_evidence": lambda registry, name, digest: registry.evidence.add(Ref(name), _EVIDENCE),
    "set_policy": lambda registry, name, digest: registry.policies.set(
        PolicyRequest(scope=str(name), text="alias: prod\nrequire: ['state() == \"active\"']\n")
    ),
    "remove_policy": lambda registry, name, digest: registry.policies.remove(str(name), "prod"),
    "approve": lambda registry, name, digest: registry.policies.approve(name, "prod", digest),
    "withdraw_approval": lambda registry, name, digest: registry.policies.withdraw_approval(
        name, "prod", digest
    ),
    "start_rollout": lambda registry, name, digest: registry.rollouts.start(
        name, "prod", digest, RolloutPlan()
    ),
    "change_rollout": lambda registry, name, digest: registry.rollouts.change(
        name, "prod", RolloutChange(to="abort"), was=1
    ),
}


_MANIFEST = Manifest.of({path: (2, Digest.of(b"{}")) for path in (CONFIG, WEIGHTS)}).to_bytes()
MAKES: Mapping[str, Ask] = {
    "create_adapter": lambda registry, name, digest: registry.adapters.create(name, AdapterEdit()),
    "open_upload": lambda registry, name, digest: registry.uploads.open(name, digest, 3),
    "put_revision": lambda registry, name, digest: registry.versions.put(name, _MANIFEST, PushOptions()),
    "put_with_files": lambda registry, name, digest: registry.versions.put_with_files(
        name, _MANIFEST, PushOptions(), [b"{}", b"{}"]
    ),
}
"""Methods that create an adapter if it does not exist."""


class TenantsContract(ContractFixtures):
    """Tests every method that names an adapter, as called by everyone who is not its owner."""

    @pytest.mark.parametrize("who", [EVE, ANONYMOUS], ids=lambda who: who.name)
    @pytest.mark.parametrize("method", [*READS, *WRITES])
    def test_a_private_adapter_looks_absent_to_strangers(
        self, make_registry: MakeRegistry, lora: MakeLora, method: str, who: Identity
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE, options=PushOptions(alias="prod")).version.digest
        ask = {**READS, **WRITES}[method]
        private, absent = (_answer(ask, make_registry(who), name, digest) for name in (TONE, ABSENT))
        assert isinstance(private, NotFound)
        assert isinstance(absent, NotFound)
        assert private.message.replace("tone", "absent") == absent.message

    @pytest.mark.parametrize("who", [EVE, ANONYMOUS], ids=lambda who: who.name)
    @pytest.mark.parametrize("method", MAKES)
    def test_callers_who_cannot_create_an_adapter_do_not_learn_whether_it_exists(
        self, make_registry: MakeRegistry, lora: MakeLora, method: str, who: Identity
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE).version.digest
        private, absent = (
            _answer(MAKES[method], make_registry(who), name, digest) for name in (TONE, ABSENT)
        )
        assert isinstance(private, PermissionDenied)
        assert isinstance(absent, PermissionDenied)
        assert private.message.replace("tone", "absent") == absent.message

    @pytest.mark.parametrize("method", sorted(READS.keys() - MEASURED))
    def test_a_reader_of_the_namespace_reads(
        self, make_registry: MakeRegistry, lora: MakeLora, method: str
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE).version.digest
        READS[method](make_registry(RON), TONE, digest)

    @pytest.mark.parametrize("method", sorted(MEASURED))
    def test_an_error_names_the_job_that_measures_weights(
        self, make_registry: MakeRegistry, lora: MakeLora, method: str
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE).version.digest
        with pytest.raises(NotFound, match="adaptry jobs submit weight-statistics"):
            READS[method](make_registry(RON), TONE, digest)

    @pytest.mark.parametrize("method", WRITES)
    def test_a_reader_of_the_namespace_does_not_write(
        self, make_registry: MakeRegistry, lora: MakeLora, method: str
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE, options=PushOptions(alias="prod")).version.digest
        with pytest.raises(PermissionDenied):
            WRITES[method](make_registry(RON), TONE, digest)

    @pytest.mark.parametrize("who", [RON, EVE, ANONYMOUS], ids=lambda who: who.name)
    def test_only_members_create_adapters_in_a_namespace(
        self, make_registry: MakeRegistry, who: Identity
    ) -> None:
        with pytest.raises(PermissionDenied):
            make_registry(who).adapters.create(TONE, AdapterEdit())


def _answer(ask: Ask, registry: Registry, name: AdapterName, digest: Digest) -> object:
    try:
        return ask(registry, name, digest)
    except AdaptryError as error:
        return error
