"""`/metrics` includes gauges of the registry for callers who may read everything, and for no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.quotas import QuotaRequest
from adaptry.registry.records import PushOptions, StateChange
from adaptry.registry.rollouts import RolloutPlan
from adaptry.registry.workers import ResidentReport, WorkerReport
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
Figures = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        yield server


def figures(server: Server, token: str | None) -> Figures:
    """Each value, by its name and the values of its labels in the order of their names."""
    families = parse(server.call("GET", "/metrics", token=token).body.decode())
    samples = (sample for family in families for sample in family.samples)
    return {(one.name, tuple(value for _, value in sorted(one.labels.items()))): one.value for one in samples}


def test_the_figures_equal_what_happened(server: Server, tmp_path: Path) -> None:
    registry = server.registry()
    first, second = (
        push(registry, open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), TONE, options=options).version
        for seed, options in ((1, PushOptions(alias="prod")), (2, PushOptions()))
    )
    registry.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
    loaded = ResidentReport(
        name=TONE, digest=first.digest, served_as="tone", condition="serving", since="2026-05-01T12:00Z"
    )
    registry.workers.report(WorkerReport(worker="gpu-7", engine="vllm", residents=(loaded,)))
    registry.aliases.move(TONE, "old", first.digest, None)
    registry.quotas.set(QuotaRequest(scope="namespace", name="acme", versions=10))

    found = figures(server, server.token("mona", "viewer", ("*",)))

    assert found["adaptry_versions", ()] == 2
    assert found["adaptry_aliases", ()] == 2
    assert found["adaptry_alias_generation", ("acme/tone", "prod")] == 1
    assert 0 <= found["adaptry_alias_age_seconds", ("acme/tone", "prod")] < 600
    assert found["adaptry_loaded_workers", (str(first.digest),)] == 1
    assert found["adaptry_rollout_step", ("acme/tone", "prod", "running")] >= 0
    assert found["adaptry_stored_versions", ("acme", "namespace")] == 2
    assert found["adaptry_stored_bytes", ("acme", "namespace")] > 0
    assert found["adaptry_quota_versions", ("acme", "namespace")] == 10
    assert found["adaptry_open_recalls", ()] == 0


def test_a_worker_counts_as_having_a_version_while_its_report_is_valid_and_its_engine_answers(
    server: Server, tmp_path: Path
) -> None:
    registry = server.registry()
    version = push(registry, open_dir(tiny_lora(tmp_path / "lora")), TONE).version
    loaded = ResidentReport(
        name=TONE, digest=version.digest, served_as="tone", condition="serving", since="2026-05-01T12:00Z"
    )
    for name, lease in (("there", 600), ("away", 600), ("lost", 1)):
        registry.workers.report(WorkerReport(worker=name, engine="vllm", lease=lease, residents=(loaded,)))
    registry.workers.report(WorkerReport(worker="away", engine="vllm", lease=600, residents=None))
    while not registry.workers.get("lost").is_lost:
        pass

    found = figures(server, server.token("mona", "viewer", ("*",)))

    assert found["adaptry_loaded_workers", (str(version.digest),)] == 1


def test_a_recall_is_open_until_the_worker_has_dropped_the_version(server: Server, tmp_path: Path) -> None:
    registry = server.registry()
    version = push(registry, open_dir(tiny_lora(tmp_path / "lora")), TONE).version
    loaded = ResidentReport(
        name=TONE, digest=version.digest, served_as="tone", condition="serving", since="2026-05-01T12:00Z"
    )
    registry.workers.report(WorkerReport(worker="gpu-7", engine="vllm", residents=(loaded,)))
    change_state(registry, Ref.parse("acme/tone@1"), StateChange(state="revoked", reason="it leaks"))

    assert figures(server, server.token("mona", "viewer", ("*",)))["adaptry_open_recalls", ()] == 1


def test_a_caller_who_may_not_read_everything_sees_no_names(server: Server, tmp_path: Path) -> None:
    push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), TONE, options=PushOptions(alias="prod"))

    for token in (None, server.token("owen", "owner", ("acme",))):
        text = server.call("GET", "/metrics", token=token).body.decode()
        assert "adaptry_requests" in text
        assert "acme" not in text
        assert "adaptry_versions" not in text


def test_every_figure_has_a_help_line(server: Server) -> None:
    text = server.call("GET", "/metrics", token=server.token("mona", "viewer", ("*",))).body.decode()

    assert all(family.documentation for family in parse(text))
