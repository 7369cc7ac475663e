"""Limits: a namespace's use and its limits; for administrators, also all limits that are set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.core.quotas import QuotaScope, QuotaSubject
from adaptry.registry.quotas import QuotaInfo, QuotaRequest
from adaptry_api.pages.settings.fields import bytes_of, count_of, text_of
from adaptry_api.pages.settings.section import Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import OF_NAMESPACE, SETTINGS, Visit


class LimitsPage(BaseModel):
    """The limits of the namespace, or all that are set."""

    quotas: tuple[QuotaInfo, ...]
    may_set: bool


def _read(visit: Visit) -> LimitsPage:
    namespace = visit.place.namespace
    subject = QuotaSubject("namespace", namespace) if namespace else None
    return LimitsPage(quotas=visit.registry.quotas.list(subject), may_set=visit.identity.may_administer)


def _set(visit: Visit, fields: Fields) -> None:
    scope, name = _subject(visit, fields)
    request = QuotaRequest(
        scope=scope,
        name=name,
        bytes=bytes_of(fields, "bytes"),
        versions=count_of(fields, "versions"),
        uploads=count_of(fields, "uploads"),
        requests=count_of(fields, "requests"),
    )
    visit.registry.quotas.set(request)


def _remove(visit: Visit, fields: Fields) -> None:
    visit.registry.quotas.remove(_subject(visit, fields))


def _subject(visit: Visit, fields: Fields) -> QuotaSubject:
    if visit.place.namespace:
        return QuotaSubject("namespace", visit.place.namespace)
    scope: QuotaScope = "principal" if fields.get("scope") == "principal" else "namespace"
    return QuotaSubject(scope, text_of(fields, "name"))


def _confirm(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(LimitsPage, value).quotas:
        if (
            one.own
            and fields.get("name", one.name) == one.name
            and fields.get("scope", one.scope) == one.scope
        ):
            what = QuotaSubject(one.scope, one.name)
            return Confirmation(
                f"Remove the limits of {what}?",
                "The limits that apply to all names of its kind then apply.",
                "Remove",
                {"scope": one.scope, "name": one.name},
            )
    return None


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = (
        "scope", "name", "bytes", "used_bytes", "reserved_bytes", "versions", "used_versions", "uploads",
        "open_uploads", "requests",
    )  # fmt: skip
    return columns, ([getattr(one, column) for column in columns] for one in cast(LimitsPage, value).quotas)


def _section(address: str) -> Section:
    return Section(
        title="Limits",
        address=address,
        template="settings_limits.html",
        read=_read,
        actions={"set": _set, "remove": _remove},
        done={"set": "The limits are set.", "remove": "The limits are removed."},
        confirms={"remove": _confirm},
        table=_table,
    )


LIMITS = _section(f"{OF_NAMESPACE}/limits")
ALL_LIMITS = _section(f"{SETTINGS}/limits")
