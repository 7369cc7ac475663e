"""Pages about an adapter with hundreds of aliases stay small: they count all aliases, and name some."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

TONE = AdapterName.parse("acme/tone")
MANY = 300


@pytest.mark.parametrize("address", ["/acme/tone", "/"])
def test_a_page_with_hundreds_of_aliases_counts_them_and_names_some(tmp_path: Path, address: str) -> None:
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        registry = server.registry()
        digest = push(registry, open_dir(tiny_lora(tmp_path / "tone")), TONE).version.digest
        for name in ("prod", *(f"a{number}" for number in range(MANY))):
            registry.aliases.move(TONE, name, digest, None)
        page = Browser(server).get(address)

    text = page.body.decode()
    assert page.status == 200
    assert text.count('class="chip alias">a1') < 150
    assert f"and {MANY + 1 - 8} more" in text
    if address != "/":
        assert f"and {MANY + 1 - 100} more" in text
        assert "/-/aliases/acme/tone/prod" in text
