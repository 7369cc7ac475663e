"""A server answers an edit of an adapter with many versions at once, and updates the search index then."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.identity import LOCAL
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.storage.catalog import index_updates
from adaptry.testing.samples import tiny_lora
from adaptry_api.app import create_app
from adaptry_api.app_state import AppState
from adaptry_api.settings import ServerSettings

TONE = AdapterName.parse("acme/tone")


def test_a_server_updates_the_search_index_after_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state: AppState = create_app(ServerSettings(data=tmp_path / "data")).state.adaptry
    registry = state.registry(LOCAL)
    for number in range(2):
        push(registry, open_dir(tiny_lora(tmp_path / str(number), seed=number)), TONE)
    monkeypatch.setattr(index_updates, "MAX_ROWS", 0)
    registry.adapters.edit(TONE, AdapterEdit(tags=("draft",)))
    assert len(registry.versions.search("tag:draft").items) == 2
    assert has_updates(state)
    state.draining.is_ready = False
    state.complete_index_updates()
    assert has_updates(state), "it does not delay the server's end"
    state.draining.is_ready = True
    state.complete_index_updates()
    assert not has_updates(state)
    assert len(registry.versions.search("tag:draft").items) == 2
    state.close()


def has_updates(state: AppState) -> bool:
    with state.catalog.read_prepared() as tx:
        return bool(index_updates.outdated_adapters(tx))
