"""Weights on the page that compares versions: stored measurements, and the job to submit if there
are none.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.pages.browser import Browser
from tests.pages.sample_registry import LEGAL, SQL, TONE
from tests.pages.statements import statements_of
from tests.pages.weight_scene import TRANSLATOR, WEIGHTS, measure, push_translators

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.weight_statistics import (
    ModulePairDistance,
    ModuleStatistics,
    WeightDistance,
    WeightStatistics,
)
from adaptry.core.errors import NotFound
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.testing.runners import RunnerProcess
from adaptry.testing.samples import tiny_lora
from adaptry_api.pages.weight_figures import (
    LEVELS,
    MAX_KINDS,
    MAX_LAYERS,
    distances_by_place,
    find_axes,
    heat_map,
    norms_by_place,
    spectra,
)
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

PART = WEIGHTS.replace("compare?", "compare/weights?")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose job has run."""
    folder = tmp_path_factory.mktemp("measured")
    with (
        ExitStack() as at_the_end,
        running_server(ServerSettings(data=folder / "data"), at_the_end.callback) as server,
    ):
        push_translators(server.registry(), folder)
        measure(server)
        yield server


def test_missing_figures_are_offered_to_users_who_may_run_jobs(embedded_team: Server) -> None:
    address = f"/-/compare/weights?ref={TONE}@4&ref={SQL}@2"
    text = Browser(embedded_team).get(address).body.decode()
    assert "not computed yet" in text
    assert "Compute as a job" in text
    reader = Browser(embedded_team, embedded_team.token("wim", "viewer", ("acme",)))
    theirs = reader.get(address).body.decode()
    assert "Compute as a job" not in theirs
    assert f"adaptry jobs submit weight-statistics versions={TONE}@4 versions={SQL}@2" in theirs
    compare = address.replace("compare/weights", "compare")
    denied = reader.post(compare, {"do": "measure"})
    assert denied.status == 403
    assert "job.run" in denied.body.decode()
    owner = Browser(embedded_team)
    assert owner.post(compare, {"do": "measure"}, Origin="https://evil.example").status == 403
    assert owner.post(compare, {"do": "explode"}).status == 400
    assert owner.post("/-/compare", {"do": "measure"}).status == 400


def test_the_job_computes_what_is_missing_once_and_a_pair_in_either_order(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    for seed, name in enumerate(("tone", "style", "voice"), 1):
        push(server.registry(), open_dir(tiny_lora(tmp_path / name, seed=seed)), f"acme/{name}")
    browser = Browser(server)
    results = []
    for refs in (("tone", "style"), ("style", "tone"), ("tone", "voice"), ("tone", "tone")):
        address = "/-/compare?" + "&".join(f"ref=acme/{name}" for name in refs)
        answer = browser.post(address, {"do": "measure"})
        assert answer.status == 303
        assert answer.headers["Location"].endswith("#weights")
        assert RunnerProcess(server.data, "--once").wait() == 0
        jobs = server.registry().jobs.list().items
        results.append([job.result for job in reversed(jobs)])
    assert results[0] == [{"measured": 2, "compared": 1}]
    assert results[1] == results[0], "nothing was missing, so there is no other job"
    assert results[2][1:] == [{"measured": 1, "compared": 1}]
    assert results[3] == results[2]


def test_the_page_shows_the_stored_figures_and_its_json_has_each_module(measured: Server) -> None:
    page = Browser(measured).get(f"{PART}&format=json").json
    first, second = page["versions"]
    registry = measured.registry()
    one, two = (Ref.parse(f"{TRANSLATOR}@{number}") for number in (1, 2))
    assert first["statistics"] == json.loads(registry.versions.weight_statistics(one).model_dump_json())
    apart = registry.versions.weight_distance(two, one)
    assert second["distance"] == json.loads(apart.model_dump_json())
    assert (page["to_measure"], page["job"]) == ([], None)
    text = Browser(measured).get(PART).body.decode()
    norm = first["statistics"]["norm"]
    for what in (f"{norm:.4g}", f"{apart.distance / norm:.4g}", f"{apart.cosine:.4f}", "gate_proj", "of 16"):
        assert what in text, what
    assert text.count('<figure class="heat">') == 3
    assert text.count('<tr><th scope="row" class="num">15</th>') == 3, "a table beside each map"
    assert text.count("<polyline") == 2 * 7


def test_a_version_compared_with_itself_has_distance_zero(measured: Server) -> None:
    page = Browser(measured).get(f"/-/compare/weights?ref={TRANSLATOR}@1&ref={TRANSLATOR}@1&format=json").json
    assert page["versions"][1]["distance"]["distance"] == 0
    assert page["to_measure"] == []


def test_methods_without_an_update_are_explained_in_a_sentence(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    push(server.registry(), open_dir(tiny_lora(tmp_path / "tone")), "acme/tone")
    pissa = tiny_lora(tmp_path / "pissa", seed=2, config={"init_lora_weights": "pissa"})
    push(server.registry(), open_dir(pissa), "acme/pissa")
    browser = Browser(server)
    text = browser.get("/-/compare/weights?ref=acme/pissa&ref=acme/tone").body.decode()
    assert "acme/pissa@1 changed the base at initialisation (pissa)" in text
    assert "the registry does not know its base, so its weights are not measured." in text
    page = browser.get("/-/compare/weights?ref=acme/pissa&ref=acme/tone&format=json").json
    assert page["to_measure"] == ["acme/tone@1"]
    assert browser.post("/-/compare?ref=acme/pissa", {"do": "measure"}).status == 303
    assert server.registry().jobs.list().items == ()


def test_a_failed_job_shows_its_error_and_can_be_retried(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    push(server.registry(), open_dir(tiny_lora(tmp_path / "tone")), "acme/tone")
    push(server.registry(), open_dir(tiny_lora(tmp_path / "wide", hidden=32)), "acme/wide")
    browser, address = Browser(server), "/-/compare?ref=acme/tone&ref=acme/wide"
    browser.post(address, {"do": "measure"})
    assert RunnerProcess(server.data, "--once").wait() == 0
    text = browser.get(address.replace("compare?", "compare/weights?")).body.decode()
    assert "they have different bases" in text
    assert "Compute as a job" in text
    assert text.count('<figure class="heat">') == 2, "each was measured all the same"


def test_figures_are_shown_only_to_readers_of_both_versions(measured: Server, tmp_path: Path) -> None:
    push(measured.registry(), open_dir(tiny_lora(tmp_path / "other")), "research/other")
    reader = Browser(measured, measured.token("rolf", "viewer", ("research",)))
    assert reader.get(PART).status == 404
    assert reader.get(f"/-/compare/weights?ref=research/other&ref={TRANSLATOR}@1").status == 404
    registry = measured.registry(measured.token("rosa", "viewer", ("research",)))
    with pytest.raises(NotFound, match="no adapter"):
        registry.versions.weight_distance(Ref.parse("research/other"), Ref.parse(f"{TRANSLATOR}@1"))


def test_the_part_is_small_and_reads_the_database_a_bounded_number_of_times(measured: Server) -> None:
    browser = Browser(measured)
    assert len(browser.get(PART).body) < 60_000
    statements = statements_of(browser, PART)
    assert 0 < len(statements) <= 40, "\n".join(statements)
    assert len(statements_of(browser, WEIGHTS)) <= 60


def _statistics(layers: int, kinds: int, rank: int = 4) -> WeightStatistics:
    modules = tuple(
        ModuleStatistics(
            module=f"model.layers.{layer}.block.kind{kind}",
            rank=rank,
            norm=1.0 + layer + kind,
            effective_rank=2.0,
            singular_values=tuple(2.0**-at for at in range(rank)),
        )
        for layer, kind in itertools.product(range(layers), range(kinds))
    )
    return WeightStatistics(norm=1.0, modules=modules)


def test_the_largest_models_are_drawn_within_bounds_and_the_rest_is_counted() -> None:
    found = _statistics(200, 40)
    axes = find_axes([found])
    assert (len(axes.layers), len(axes.kinds)) == (MAX_LAYERS, MAX_KINDS)
    assert (axes.all_layers, axes.all_kinds, axes.is_whole) == (200, 40, False)
    drawn = heat_map(axes, dict(norms_by_place(found)), 250.0)
    assert sum(path.count("M") for path in drawn.paths) == MAX_LAYERS * MAX_KINDS
    assert sum(map(len, drawn.paths)) < 30 * MAX_LAYERS * MAX_KINDS
    assert len(spectra(axes, [found, None])) == MAX_KINDS


def test_layers_are_in_the_order_of_their_numbers_and_levels_follow_the_values() -> None:
    found = _statistics(12, 2)
    axes = find_axes([found])
    assert axes.layer_names == tuple(map(str, range(12)))
    assert axes.kind_names == ("kind0", "kind1")
    drawn = heat_map(axes, dict(norms_by_place(found)), 13.0)
    assert drawn.values[0] == (1.0, 2.0)
    assert drawn.values[11] == (12.0, 13.0)
    assert drawn.paths[0].count("M") + drawn.paths[LEVELS - 1].count("M") > 0
    assert f"M44 {axes.top}h" in drawn.paths[0], "the smallest value has the lightest colour"
    assert f"M74 {axes.top + 14 * 11}h" in drawn.paths[LEVELS - 1]


def test_experts_of_a_layer_are_one_place() -> None:
    modules = tuple(
        ModuleStatistics(
            module=f"model.layers.0.mlp.experts.{expert}.up_proj",
            rank=1,
            norm=3.0 if expert else 4.0,
            effective_rank=1.0,
            singular_values=(3.0,),
        )
        for expert in range(2)
    )
    found = WeightStatistics(norm=5.0, modules=modules)
    assert norms_by_place(found) == {("model.layers.0", "mlp.experts.*.up_proj"): 5.0}
    assert find_axes([found]).kind_names == ("up_proj",)


def test_a_distance_has_no_value_where_the_first_version_has_no_update() -> None:
    first = _statistics(1, 1)
    pairs = tuple(
        ModulePairDistance(module=f"model.layers.0.block.kind{kind}", distance=0.5, cosine=None)
        for kind in range(2)
    )
    found = distances_by_place(first, WeightDistance(distance=1.0, cosine=None, modules=pairs))
    assert found == {("model.layers.0", "block.kind0"): 0.5, ("model.layers.0", "block.kind1"): None}


def test_versions_of_other_shapes_and_withheld_files_cause_no_error_on_the_page(
    embedded_team: Server,
) -> None:
    browser = Browser(embedded_team)
    assert browser.get(f"/-/compare/weights?ref={TONE}@4&ref={LEGAL}").status == 200
    reader = Browser(embedded_team, embedded_team.token("wilma", "viewer", ("acme",)))
    withheld = reader.get(f"/-/compare/weights?ref={TONE}@3&ref={TONE}@4").body.decode()
    assert "its files are withheld" in withheld
    assert browser.get("/-/compare/weights").status in (400, 422)
    assert browser.get("/-/compare/weights?ref=nonsense").status == 400
