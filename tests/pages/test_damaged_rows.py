"""Pages of an adapter one of whose versions has lost or damaged rows in the catalog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import CorruptData
from adaptry.core.refs import Ref
from adaptry.operations.repair import repair_registry
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

PAGES = (
    "/acme/tone",
    "/acme/tone?version=2",
    "/-/adapters/acme/tone/2/fit",
    "/-/adapters/acme/tone/2/lineage",
    "/-/adapters/acme/tone/2/promote",
    "/-/compare?ref=acme/tone@1&ref=acme/tone@2",
    "/-/compare/weights?ref=acme/tone@1&ref=acme/tone@2",
    "/-/combine?ref=acme/tone@1&ref=acme/tone@2",
)


@pytest.fixture
def server(start: Callable[..., Server], tmp_path: Path) -> Server:
    server = start()
    for seed in (1, 2):
        push(server.registry(), open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), "acme/tone")
    return server


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM version_details WHERE version_id = 2",
        "UPDATE version_details SET report = x'00' WHERE version_id = 2",
        "UPDATE version_details SET spec = x'00' WHERE version_id = 2",
    ],
)
def test_pages_name_the_damaged_version_and_the_repair_and_show_the_others(
    server: Server, damage: str
) -> None:
    with server.catalog.write() as tx:
        tx.execute(sa.text(damage))
    browser = Browser(server)

    for address in PAGES:
        text = browser.get(address).body.decode()
        assert "version 2 (sha256:" in text or "version 2</" in text, address
        assert "internal error" not in text.lower(), address
    for address in ("/acme/tone", "/acme/tone?version=2"):
        assert "adaptry repair" in browser.get(address).body.decode()
    assert browser.get("/acme/tone?version=1").status == 200
    assert browser.get("/").status == 200
    with pytest.raises(CorruptData, match=r"version 2 .* is incomplete or damaged; run `adaptry repair`"):
        server.registry().versions.detail(Ref.parse("acme/tone@2"))

    repair_registry(open_local(server.data))

    assert browser.get("/acme/tone").status == 200
