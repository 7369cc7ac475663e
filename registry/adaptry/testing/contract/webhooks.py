"""The promise about webhooks: who may manage them, which data is stored, and that no secret is shown
twice."""

from __future__ import annotations

import pytest

from adaptry.core.errors import AdaptryError, Conflict, Invalid, InvalidRef, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.registry.interface import Registry
from adaptry.registry.webhooks import MAX_WEBHOOKS, CreatedSecret, SecretRotation, WebhookRequest
from adaptry.testing.contract.fixtures import ADA, ContractFixtures, MakeRegistry

OLGA = Identity.with_role("olga", "owner", ("acme",))
EVAN = Identity.with_role("evan", "owner", ("evil",))
URL = "https://127.0.0.1:9/hook"  # servers connect to it only if their operator allows it


class WebhooksContract(ContractFixtures):
    """Webhooks of a namespace; other tests run the sender and examine its messages."""

    @pytest.fixture
    def added(self, make_registry: MakeRegistry) -> CreatedSecret:
        request = WebhookRequest(namespace="acme", url=URL, kinds=("alias.*",), adapters="tone-*")
        return make_registry(OLGA).webhooks.add(request)

    def test_a_webhook_is_listed_without_its_secret(
        self, make_registry: MakeRegistry, added: CreatedSecret
    ) -> None:
        owner = make_registry(OLGA)
        (found,) = owner.webhooks.list("acme")

        assert found == added.webhook == owner.webhooks.get(found.id) == owner.webhooks.list()[0]
        assert (found.url, found.kinds, found.adapters) == (URL, ("alias.*",), "tone-*")
        assert (found.owner, found.failures, found.disabled_at) == ("olga", 0, None)
        assert added.secret.startswith("whsec_")
        assert added.secret not in found.model_dump_json()

    def test_a_rotated_secret_is_another_one_and_the_old_one_signs_for_a_while(
        self, make_registry: MakeRegistry, added: CreatedSecret
    ) -> None:
        rotated = make_registry(OLGA).webhooks.rotate(added.webhook.id, SecretRotation(hours=2))

        assert rotated.secret != added.secret
        assert rotated.webhook.old_secret_until is not None
        at_once = make_registry(OLGA).webhooks.rotate(added.webhook.id, SecretRotation(hours=0))
        assert at_once.webhook.old_secret_until is None

    def test_messages_are_listed_newest_first_and_sent_again_on_request(
        self, make_registry: MakeRegistry, added: CreatedSecret
    ) -> None:
        webhooks, id = make_registry(OLGA).webhooks, added.webhook.id
        made = [webhooks.test(id).message for _ in range(3)]

        first = webhooks.deliveries(id, limit=2)
        rest = webhooks.deliveries(id, first.next, limit=2)
        assert [one.message for one in (*first.items, *rest.items)] == made[::-1]
        assert {one.kind for one in first.items} == {"webhook.tested"}
        assert webhooks.redeliver(id, made[0]).message == made[0]
        with pytest.raises(NotFound, match="no message"):
            webhooks.redeliver(id, "msg_none")

    def test_a_disabled_webhook_is_sent_nothing_until_it_is_enabled(
        self, make_registry: MakeRegistry, added: CreatedSecret
    ) -> None:
        webhooks, id = make_registry(OLGA).webhooks, added.webhook.id
        webhooks.test(id)

        assert webhooks.set_enabled(id, False).disabled_reason == "disabled by olga"
        assert [one.state for one in webhooks.deliveries(id).items] == ["failed"]
        with pytest.raises(Conflict, match="adaptry webhook enable"):
            webhooks.test(id)
        assert webhooks.set_enabled(id, True).disabled_at is None
        assert webhooks.test(id).state == "pending"

    def test_a_webhook_is_absent_for_all_but_its_managers(
        self, make_registry: MakeRegistry, registry: Registry, added: CreatedSecret
    ) -> None:
        assert registry.webhooks.get(added.webhook.id) == added.webhook  # an administrator
        for who in (ADA, EVAN):  # a writer of the namespace, and the owner of another one
            other = make_registry(who)
            assert other.webhooks.list() == ()
            for namespace in ("acme", "nowhere"):
                with pytest.raises(PermissionDenied, match=r"webhook\.manage"):
                    other.webhooks.list(namespace)
            with pytest.raises(PermissionDenied, match=r"webhook\.manage"):
                other.webhooks.add(WebhookRequest(namespace="acme", url=URL))
            assert _refusals(other, added.webhook.id) == _refusals(other, 999)

    def test_a_removed_webhook_is_deleted_with_its_messages(
        self, make_registry: MakeRegistry, added: CreatedSecret
    ) -> None:
        webhooks = make_registry(OLGA).webhooks
        webhooks.test(added.webhook.id)
        webhooks.remove(added.webhook.id)

        assert webhooks.list() == ()
        with pytest.raises(NotFound):
            webhooks.deliveries(added.webhook.id)

    def test_malformed_requests_are_refused(self, registry: Registry) -> None:
        for url in (
            "ftp://ci.example.com",
            "https://",
            "https://a:b@ci.example.com",
            "ci.example.com",
            "x" * 99,
        ):
            with pytest.raises(Invalid):
                registry.webhooks.add(WebhookRequest(namespace="acme", url=url))
        with pytest.raises(InvalidRef):
            registry.webhooks.add(WebhookRequest(namespace="a/b", url=URL))

    def test_a_kind_that_no_event_of_an_adapter_has_is_refused(self, registry: Registry) -> None:
        for kind, nearest in (
            ("alias.mvoed", "did you mean alias.moved"),
            ("branch.create", "did you mean branch.created"),
            ("versions.*", r"did you mean version\.\*"),
            ("base.registered", "no event of an adapter"),
        ):
            with pytest.raises(Invalid, match=nearest):
                registry.webhooks.add(WebhookRequest(namespace="acme", url=URL, kinds=(kind,)))
        assert registry.webhooks.list() == ()

    def test_a_namespace_has_a_limited_number_of_webhooks(self, registry: Registry) -> None:
        for _ in range(MAX_WEBHOOKS):
            registry.webhooks.add(WebhookRequest(namespace="acme", url=URL))
        with pytest.raises(Conflict, match="remove one first"):
            registry.webhooks.add(WebhookRequest(namespace="acme", url=URL))
        registry.webhooks.add(WebhookRequest(namespace="evil", url=URL))


def _refusals(registry: Registry, id: int) -> list[tuple[type[AdaptryError], str]]:
    webhooks, found = registry.webhooks, []
    for call in (
        lambda: webhooks.get(id),
        lambda: webhooks.set_enabled(id, False),
        lambda: webhooks.remove(id),
        lambda: webhooks.test(id),
        lambda: webhooks.rotate(id, SecretRotation()),
        lambda: webhooks.deliveries(id),
        lambda: webhooks.redeliver(id, "msg_1"),
    ):
        with pytest.raises(AdaptryError) as refused:
            call()
        found.append((refused.type, str(refused.value).replace(str(id), "ID")))
    return found
