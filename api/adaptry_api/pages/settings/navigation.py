"""The list of sections beside every settings page: those that the visitor may use."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry_api.pages.settings.subject import SETTINGS, SettingsSubject


@dataclass(frozen=True, slots=True)
class SectionGroup:
    """The sections about one subject: their addresses and titles."""

    title: str
    links: tuple[tuple[str, str], ...]


def sections_for(identity: Identity, place: SettingsSubject) -> tuple[SectionGroup, ...]:
    """Sections of the page's subject, then of its namespace, of the visitor, and of the registry."""
    found = []
    if place.adapter:
        found.append(SectionGroup(str(place.adapter), tuple(_of_adapter(identity, place))))
    if place.namespace:
        around = SettingsSubject(place.namespace)
        found.append(SectionGroup(place.namespace, tuple(_of_namespace(identity, around))))
    found.append(SectionGroup("You", tuple(_of_person(identity))))
    if identity.may_administer:
        links = (
            ("users", "Users"),
            ("groups", "Groups"),
            ("issuers", "Trusted issuers"),
            ("limits", "Limits"),
        )
        found.append(SectionGroup("Registry", tuple((f"{SETTINGS}/{part}", title) for part, title in links)))
    return tuple(one for one in found if one.links)


def may_manage_publishers(identity: Identity, name: AdapterName) -> bool:
    """The rights that `Publishers` requires."""
    in_namespace = all(
        identity.may_in(action, name.namespace) for action in ("token.manage", "member.manage")
    )
    return in_namespace and identity.may("push", name)


def has_settings(identity: Identity, namespace: str) -> bool:
    """Whether any section of the namespace is open to the visitor."""
    return any(True for _ in _of_namespace(identity, SettingsSubject(namespace)))


def _of_person(identity: Identity) -> Iterator[tuple[str, str]]:
    if identity.principal is not None:
        yield f"{SETTINGS}/tokens", "Tokens"


def _of_namespace(identity: Identity, place: SettingsSubject) -> Iterator[tuple[str, str]]:
    namespace = place.namespace
    if identity.has_namespace(namespace):
        yield f"{place.address}/members", "Members"
    if identity.may_in("token.manage", namespace):
        yield f"{place.address}/service-accounts", "Service accounts"
    if identity.has_namespace(namespace):
        yield f"{place.address}/policies", "Policies"
    if identity.may_in("webhook.manage", namespace):
        yield f"{place.address}/webhooks", "Webhooks"
    if identity.has_namespace(namespace):
        yield f"{place.address}/limits", "Limits"


def _of_adapter(identity: Identity, place: SettingsSubject) -> Iterator[tuple[str, str]]:
    assert place.adapter is not None
    if identity.may_read(place.adapter, "private"):
        yield f"{place.address}/policies", "Policies"
    if may_manage_publishers(identity, place.adapter):
        yield f"{place.address}/publishers", "Trusted publishers"
