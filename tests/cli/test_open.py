"""`adaptry open` prints the address of a page and opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server


@pytest.mark.slow
def test_a_page_is_printed_and_opened_at_the_version_that_the_ref_means(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        made = open_dir(tiny_lora(tmp_path / "lora"))
        push(server.registry(), made, "acme/tone", options=PushOptions(alias="prod"))
        monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
        monkeypatch.setenv("BROWSER", f"{browser} %s")

        def printed(*words: str) -> str:
            return run("open", *words, "--registry", server.url).stdout.strip()

        assert printed("acme/tone@prod") == f"{server.url}/acme/tone?version=1"
        assert printed("acme/tone", "--print") == f"{server.url}/acme/tone"
        assert printed("--print") == f"{server.url}/"
        run("open", "acme/none", "--registry", server.url, code=3)
        assert opened.read_text().strip() == f"{server.url}/acme/tone?version=1"


def test_a_registry_in_a_folder_has_no_pages_until_it_is_served(run) -> None:
    assert "adaptry serve" in run("open", "acme/tone", code=2).stderr
