"""An adapter's licence: tags such as `license:mit`, from the README of its newest version with one.

Commits of Hub clients apply all tags of a README themselves.
"""

from __future__ import annotations

from adaptry.adapters.content import Content
from adaptry.registry.records import MAX_TAGS, AdapterEdit
from adaptry.storage.catalog import adapters, events
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext

_README = "README.md"
_TAG = "license:"


def licences_in(content: Content) -> tuple[str, ...]:
    """The licences that the README among these files states, if its size is reasonable."""
    size = content.sizes.get(_README)
    if size is None:
        return ()
    from adaptry.core.readme_licence import MAX_README, stated_licences  # many adapters have no README

    if size > MAX_README:
        return ()
    return stated_licences(content.read_all(_README, MAX_README))


def set_licences(
    context: RegistryContext, tx: Transaction, adapter: AdapterRecord, licences: tuple[str, ...]
) -> None:
    """Replaces the adapter's licence tags, if any licence is stated."""
    if not licences:
        return
    was = adapters.info(tx, adapter).tags
    others = tuple(tag for tag in was if not tag.startswith(_TAG))
    tags = (*others, *dict.fromkeys(f"{_TAG}{licence.lower()}" for licence in licences))
    if set(tags) == set(was) or len(tags) > MAX_TAGS:
        return
    now, by = context.clock(), context.identity.name
    adapters.edit(tx, adapter, AdapterEdit(tags=tags), now)
    detail, before = {"tags": ", ".join(tags)}, {"tags": ", ".join(was)}
    events.record(tx, "adapter.edited", at=now, by=by, adapter=adapter, detail=detail, before=before)
