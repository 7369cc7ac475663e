"""Trusted publishers of an adapter: CI jobs that may push without a stored token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.core.refs import AdapterName
from adaptry.registry.publishers import IssuerInfo, PublisherInfo, PublisherRequest
from adaptry_api.pages.settings.fields import optional_text, text_of
from adaptry_api.pages.settings.section import Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import OF_ADAPTER, Visit, whole_number


class PublishersPage(BaseModel):
    """The adapter's publishers, and the issuers that a new one may name."""

    publishers: tuple[PublisherInfo, ...]
    issuers: tuple[IssuerInfo, ...]


def _read(visit: Visit) -> PublishersPage:
    publishers = visit.registry.publishers
    return PublishersPage(publishers=publishers.list(_adapter(visit)), issuers=publishers.list_issuers())


def _adapter(visit: Visit) -> AdapterName:
    assert visit.place.adapter is not None
    return visit.place.adapter


def _add(visit: Visit, fields: Fields) -> None:
    request = PublisherRequest(
        issuer=text_of(fields, "issuer"),
        project_id=text_of(fields, "project_id"),
        owner_id=text_of(fields, "owner_id"),
        workflow=text_of(fields, "workflow"),
        environment=optional_text(fields, "environment"),
        branch=optional_text(fields, "branch"),
    )
    visit.registry.publishers.add(_adapter(visit), request)


def _remove(visit: Visit, fields: Fields) -> None:
    visit.registry.publishers.remove(_adapter(visit), whole_number(fields.get("id", "")))


def _confirm(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(PublishersPage, value).publishers:
        if str(one.id) == fields.get("id"):
            text = (
                f"Jobs of {one.workflow} in the project {one.project_id} can no longer push here. Tokens that"
                " they hold are refused within five seconds."
            )
            return Confirmation("Remove this publisher?", text, "Remove", {"id": str(one.id)})
    return None


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = ("id", "issuer", "account", "project_id", "owner_id", "workflow", "environment", "branch")
    return columns, (
        [getattr(one, column) for column in columns] for one in cast(PublishersPage, value).publishers
    )


PUBLISHERS = Section(
    title="Trusted publishers",
    address=f"{OF_ADAPTER}/publishers",
    template="settings_publishers.html",
    read=_read,
    actions={"add": _add, "remove": _remove},
    done={"add": "The publisher is added.", "remove": "The publisher is removed."},
    confirms={"remove": _confirm},
    table=_table,
)
