"""The contents of `/metrics`, as Prometheus' own parser reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from adaptry import __version__
from adaptry_api.metrics import BOUNDS, RequestMetrics


def read(counts: RequestMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(counts.render())
        for sample in family.samples
    }


def test_metrics_have_stable_names_labels_and_values() -> None:
    counts = RequestMetrics()
    counts.record("GET", "/x/{name}", 200, 0.03, 5, 7)
    counts.record("BREW", "/x/{name}", 418, 70, 10, 20)
    values = read(counts)
    route = ("route", "/x/{name}")

    def value(name: str, *labels: tuple[str, str]) -> float:
        return values.pop((name, frozenset(labels)))

    assert value("adaptry_info", ("version", __version__)) == 1
    assert value("adaptry_requests_total", ("method", "GET"), route, ("status", "200")) == 1
    assert value("adaptry_requests_total", ("method", "other"), route, ("status", "418")) == 1
    assert value("adaptry_received_bytes_total") == 15
    assert value("adaptry_sent_bytes_total") == 27
    assert value("adaptry_request_seconds_sum", route) == 70.03
    assert value("adaptry_request_seconds_count", route) == 2
    for bound in BOUNDS:
        assert value("adaptry_request_seconds_bucket", route, ("le", str(bound))) == (bound > 0.03)
    assert value("adaptry_request_seconds_bucket", route, ("le", "+Inf")) == 2
    assert values == {}


def test_two_apps_in_one_process_count_separately() -> None:
    one, other = RequestMetrics(), RequestMetrics()
    one.record("GET", "/x", 200, 0.03, 5, 7)
    assert "/x" not in other.render()
