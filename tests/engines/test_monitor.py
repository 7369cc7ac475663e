"""A worker's health checks and Prometheus metrics show the state of the engine, and which parts do not
respond.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import urllib3
from click.testing import Result
from prometheus_client.parser import text_string_to_metric_families

from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.follow.reconciler import Reconciler
from adaptry_cli.follow_servers import open_monitor

from .conftest import PROD, Scene, settle
from .test_commands import follow, run
from .test_proxy import ask

__all__ = ["follow", "run"]
A, B = "acme/a@prod", "acme/b@prod"


def read(worker: Reconciler, path: str) -> tuple[int, str]:
    with open_monitor("127.0.0.1:0", lambda: worker.residency) as monitor:
        answer = urllib3.request("GET", f"{monitor.url}{path}", retries=False)
        return answer.status, answer.data.decode()


def series(worker: Reconciler, name: str, **labels: str) -> float | None:
    """The one value of a metric with these labels; None if there is none."""
    status, text = read(worker, "/metrics")
    assert status == 200
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


def test_a_worker_is_ready_once_the_engine_has_the_versions_of_the_aliases_and_as_long_as_it_answers(
    scene: Scene,
) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    worker = scene.worker(engine)
    assert [read(worker, "/healthz")[0], read(worker, "/readyz")[0]] == [200, 503]
    settle(worker)
    assert read(worker, "/readyz") == (200, '{"status": "ready"}\n')
    engine.stop()
    worker.reconcile(0.0)
    status, text = read(worker, "/readyz")
    assert (status, "the engine does not answer" in text) == (503, True)
    assert series(worker, "adaptry_engine_up") == 0
    assert read(worker, "/")[0] == 404


def test_metrics_show_loaded_versions_and_their_requests(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    worker = scene.worker(scene.engine(), has_proxy=True, slots=3)
    settle(worker)
    version = {"adapter": "acme/tone", "version": "1", "digest": first.digest.brief, "engine": "vllm"}
    assert series(worker, "adaptry_adapter_loaded", **version) == 1
    assert series(worker, "adaptry_adapter_requests_total", **version) is None
    assert [series(worker, f"adaptry_slots_{kind}") for kind in ("used", "free")] == [1, 2]
    ask(scene)
    ask(scene)
    worker.reconcile(0.0)
    assert series(worker, "adaptry_adapter_requests_total", **version, status="200") == 2
    assert series(worker, "adaptry_adapter_tokens_total", **version, kind="completion") == 6
    assert series(worker, "adaptry_adapter_last_used_timestamp_seconds", **version)
    scene.stand(first)
    settle(worker)
    assert series(worker, "adaptry_adapter_loaded") is None
    assert series(worker, "adaptry_unserved_names") == 1


def test_metrics_show_how_long_the_registry_is_unreachable(scene: Scene) -> None:
    scene.alias(scene.publish(1))
    token = scene.token("gpu-1")
    worker = scene.worker(scene.engine(), token=token)
    settle(worker)
    assert series(worker, "adaptry_registry_up") == 1
    at = worker.residency.registry_answered_at
    scene.server.call("POST", "/api/v1/tokens/revoke", {"token": token})
    worker.reconcile(0.0)
    assert series(worker, "adaptry_registry_up") == 0
    assert worker.residency.registry_answered_at == at
    assert read(worker, "/readyz")[0] == 200


@pytest.mark.parametrize("pinned", [(), (A,)])
def test_a_requested_name_takes_the_slot_of_the_least_recently_used_unpinned_one(
    scene: Scene, pinned: tuple[str, ...]
) -> None:
    for seed, name in enumerate((A, B), start=1):
        scene.alias(scene.publish(seed, AdapterName.parse(name.partition("@")[0])))
    worker = scene.worker(scene.engine(), has_proxy=True, slots=1, pin=pinned)
    settle(worker)
    assert ask(scene, A) == (200, 1)
    assert ask(scene, B)[0] == 404

    settle(worker)

    assert [ask(scene, name)[0] for name in (A, B)] == ([200, 404] if pinned else [404, 200])


def test_wrong_addresses_and_too_many_pins_are_refused(scene: Scene, follow: Callable[..., Result]) -> None:
    engine = scene.engine()
    told = follow(engine, "--pin", PROD, "--pin", A, "--slots", "1", code=2).stderr
    assert "2 refs are pinned, but --slots is 1" in told
    for address in ("8001", "127.0.0.1:99999", "http://127.0.0.1:80"):
        assert "not an address to listen on" in follow(engine, "--listen", address, code=2).stderr
