"""Pages about a version on very many workers: they count all workers, and name a few."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import StateChange
from adaptry.registry.workers import DroppedAdapter, ResidentReport, WorkerReport
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
WORKERS = 40
DROPPED = 15


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Version 1 is revoked and was on forty workers, of which fifteen dropped it; `prod` is at version 2, and
    no worker has version 3.
    """
    folder = tmp_path_factory.mktemp("fleet")
    with running_server(ServerSettings(data=folder / "data")) as server:
        registry = server.registry()
        one, two, _ = (
            push(registry, open_dir(tiny_lora(folder / str(seed), seed=seed)), TONE).version
            for seed in (1, 2, 3)
        )
        registry.aliases.move(TONE, "prod", two.digest, None)

        def report(number: int, *, has_dropped: bool) -> None:
            loaded = tuple(
                ResidentReport(
                    name=TONE,
                    digest=version.digest,
                    served_as=f"{TONE}@prod",
                    condition="serving",
                    since=version.created_at,
                )
                for version in ((two,) if has_dropped else (one, two))
            )
            dropped = (DroppedAdapter(name=TONE, digest=one.digest),) if has_dropped else ()
            registry.workers.report(
                WorkerReport(worker=f"gpu-{number:02}", engine="vllm", residents=loaded, dropped=dropped)
            )

        for number in range(WORKERS):
            report(number, has_dropped=False)
        registry.versions.set_state(TONE, one.digest, StateChange(state="revoked", reason="it leaks"), 0)
        for number in range(DROPPED):
            report(number, has_dropped=True)
        yield server


def test_a_recall_counts_all_workers_and_shows_those_that_may_serve_the_version_first(fleet: Server) -> None:
    browser = Browser(fleet)
    (recall,) = browser.get("/-/fleet?format=json").json["recalls"]
    assert (recall["total"], recall["closed"], recall["is_complete"]) == (WORKERS, DROPPED, False)
    assert [line["worker"] for line in recall["lines"]] == [f"gpu-{n}" for n in range(DROPPED, DROPPED + 12)]
    text = browser.get("/-/fleet").body.decode()
    assert f"waits for {WORKERS - DROPPED} workers" in text
    assert f"and {WORKERS - 12} workers more" in text
    assert f"adaptry recall status {TONE}@1" in text


def test_the_page_of_the_adapter_counts_all_workers_and_names_a_few(fleet: Server) -> None:
    browser = Browser(fleet)
    found = browser.get(f"/{TONE}?format=json").json["residents"]["2"]
    assert (found["total"], found["may_serve"], len(found["first"])) == (WORKERS, WORKERS, 12)
    assert f"{WORKERS} workers" in browser.get(f"/{TONE}").body.decode()
    withdrawn = browser.get(f"/{TONE}?version=1").body.decode()
    assert f"{WORKERS - DROPPED} workers may still serve it" in withdrawn
    assert f"and {WORKERS - DROPPED - 12} more" in withdrawn


def test_the_dialogs_that_move_an_alias_count_all_workers_that_would_switch(fleet: Server) -> None:
    browser = Browser(fleet)
    text = browser.get(f"/-/adapters/{TONE}/3/promote").body.decode()
    assert f"{WORKERS} workers serve version 2" in text
    assert f"and {WORKERS - 12} more" in text
    assert f"{WORKERS} workers" in browser.get(f"/-/aliases/{TONE}/prod").body.decode()
