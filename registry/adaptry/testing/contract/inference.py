"""The promise about rights at inference: a gateway learns who may use which adapter, and strangers learn
nothing.
"""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import InvalidRef, PermissionDenied
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.access import GrantRequest, TokenRequest
from adaptry.registry.inference import DENIAL, InferenceDecision, InferenceRequest
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.testing.contract.fixtures import ADA, TONE, ContractFixtures, MakeLora, MakeRegistry

GATEWAY = Identity("gate", (Grant("inference.authorize", Resource("acme")),))
FACTS = AdapterName.parse("acme/facts")


class InferenceContract(ContractFixtures):
    """Decisions for gateways about the holders of tokens."""

    @pytest.fixture
    def zoe(self, registry: Registry) -> str:
        """The token of a user who may read acme/tone, and nothing else."""
        registry.principals.create("user", "zoe")
        registry.grants.add(GrantRequest(principal="zoe", permission="viewer", resource="acme/tone"))
        return registry.tokens.create(TokenRequest(name="app", principal="zoe")).secret

    def test_readers_of_an_adapter_may_use_it(
        self, make_registry: MakeRegistry, lora: MakeLora, zoe: str
    ) -> None:
        version = push(make_registry(ADA), lora(), TONE, options=PushOptions(alias="prod")).version

        decision = ask(make_registry(GATEWAY), zoe, "acme/tone@prod=0.5")

        assert (decision.is_allowed, decision.principal) == (True, "zoe")
        assert [(part.name, part.number, part.digest, part.weight) for part in decision.parts] == [
            (TONE, 1, version.digest, 0.5)
        ]
        assert decision.max_age <= 5

    def test_a_stack_requires_the_right_to_every_part(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, zoe: str
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        push(make_registry(ADA), lora(2), FACTS)
        gate = make_registry(GATEWAY)

        assert ask(gate, zoe, "acme/tone+acme/facts=0.5") == DENIAL
        registry.adapters.edit(FACTS, AdapterEdit(visibility="public"))
        assert [part.name for part in ask(gate, zoe, "acme/tone+acme/facts=0.5").parts] == [TONE, FACTS]

    def test_every_denial_is_the_same(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, zoe: str
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE, options=PushOptions(alias="prod")).version.digest
        push(make_registry(ADA), lora(2), FACTS)
        gate = make_registry(GATEWAY)
        assert ask(gate, zoe, "acme/tone@1").is_allowed

        denied = [(zoe, "acme/facts"), (zoe, "acme/absent"), (zoe, "acme/tone@7"), (zoe, "acme/tone@stage")]
        denied += [("", "acme/tone"), ("adr_pat_nobody", "acme/tone"), (zoe[:-1], "acme/tone")]
        assert [ask(gate, token, model) for token, model in denied] == [DENIAL] * len(denied)
        registry.versions.set_state(TONE, digest, StateChange(state="revoked", reason="it leaks"), 0)
        assert ask(gate, zoe, "acme/tone@1") == DENIAL

    def test_a_revoked_right_ends_with_the_next_answer(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora, zoe: str
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        gate = make_registry(GATEWAY)
        assert ask(gate, zoe, "acme/tone").is_allowed

        registry.grants.remove(registry.grants.list(principal="zoe").items[0].id)

        assert ask(gate, zoe, "acme/tone") == DENIAL

    def test_a_gateway_gets_answers_about_its_own_namespace_only(
        self, make_registry: MakeRegistry, lora: MakeLora, zoe: str
    ) -> None:
        push(make_registry(LOCAL), lora(), AdapterName.parse("evil/tone"))
        for model in ("evil/tone", "acme/tone+evil/tone", "evil/absent"):
            with pytest.raises(PermissionDenied, match=r"gate may not authorize requests in 'evil'"):
                ask(make_registry(GATEWAY), zoe, model)
        with pytest.raises(PermissionDenied, match=r"inference\.authorize"):  # a member without that right
            ask(make_registry(ADA), zoe, "acme/tone")

    def test_a_malformed_model_is_refused(self, make_registry: MakeRegistry, zoe: str) -> None:
        for model in ("tone", "acme/tone+", "acme/tone=x", "acme/tone+acme/tone=2"):
            with pytest.raises(InvalidRef):
                ask(make_registry(GATEWAY), zoe, model)


def ask(gateway: Registry, token: str, model: str) -> InferenceDecision:
    return gateway.grants.authorize(InferenceRequest(token=SecretStr(token), model=model))
