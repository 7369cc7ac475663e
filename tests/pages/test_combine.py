"""The page that combines adapters: compatibility by headers, the recipe, previews, and runs as jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pages.browser import Browser
from tests.pages.sample_registry import LEGAL, SQL, TONE

from adaptry.adapters.adapter import open_dir
from adaptry.compute.combining.recipe_file import read_recipe
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobInfo
from adaptry.testing.runners import RunnerProcess
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

COMBINE = "/-/combine"
RECIPE = f"{COMBINE}?ref={TONE}@4&weight=0.7&ref={SQL}@2&weight=0.3&method=ties&p.density=0.4&to=acme/both"


@pytest.fixture(scope="module")
def browser(embedded_team: Server) -> Browser:
    return Browser(embedded_team)


def test_headers_determine_the_modules_that_versions_share(browser: Browser) -> None:
    page = browser.get(f"{RECIPE}&format=json").json
    rows = {row["name"]: row for row in page["modules"]}
    assert (rows["q_proj"]["counts"], rows["q_proj"]["shared"]) == ([2, 2], 2)
    assert (rows["k_proj"]["counts"], rows["k_proj"]["shared"]) == ([2, 0], 0)
    assert rows["q_proj"]["ranks"] == [[16], [8]]
    text = browser.get(RECIPE).body.decode()
    assert "not computed yet" in text
    assert "not changed" in text


def test_the_table_of_modules_is_a_csv_file(browser: Browser) -> None:
    lines = browser.get(f"{RECIPE}&format=csv").body.decode().splitlines()

    assert lines[0] == f"module,shared,{TONE}@4 layers,{TONE}@4 ranks,{SQL}@2 layers,{SQL}@2 ranks"
    assert "q_proj,2,2,16,2,8" in lines and "k_proj,0,2,16,0," in lines


def test_the_recipe_is_a_file_that_the_command_line_reads(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text(browser.get(f"{RECIPE}&rank=4&uniform=on&format=json").json["recipe"])
    recipe = read_recipe(file)
    assert [(one.source, one.weight) for one in recipe.inputs] == [(f"{TONE}@4", 0.7), (f"{SQL}@2", 0.3)]
    assert (recipe.method, recipe.parameters, recipe.rank) == ("ties", {"density": 0.4}, 4)
    assert (recipe.uniform, recipe.output) == (True, "acme/both")


def test_an_alias_becomes_the_version_that_it_means_now(browser: Browser) -> None:
    page = browser.get(f"{COMBINE}?ref={TONE}@prod&ref={SQL}@prod&format=json").json
    assert page["task"]["inputs"] == [f"{TONE}@4=1", f"{SQL}@1=1"]
    assert page["task"]["to"] == f"{TONE}-combined"
    text = browser.get(f"{COMBINE}?ref={TONE}@prod&ref={SQL}@prod").body.decode()
    assert "ref=acme%2Fsupport-tone%404" in text


def test_the_result_of_an_adapter_with_a_long_name_has_a_name_too(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server, long = start(), f"acme/{'w' * 86}-{'x' * 9}"
    push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), long)

    page = Browser(server).get(f"{COMBINE}?ref={long}&ref={long}&format=json")

    assert page.status == 200
    assert page.json["task"]["to"] == f"acme/{'w' * 86}-combined"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("&p.density=7", "density must be from 0 to 1"),
        ("&p.density=many", "density is not a number"),
        ("&rank=0", "rank"),
        ("&rank=x", "rank is not a whole number"),
        ("&to=nowhere", "nowhere"),
    ],
)
def test_an_invalid_recipe_is_explained_and_the_form_keeps_its_fields(
    browser: Browser, changes: str, says: str
) -> None:
    base = RECIPE.replace("&p.density=0.4", "").replace("&to=acme/both", "")
    answer = browser.get(base + changes)
    assert answer.status == 400
    text = answer.body.decode()
    assert says in text.split("<main", 1)[1]
    assert f'value="{changes.partition("=")[2]}"' in text
    assert browser.post(base + changes, {"do": "run"}).status == 400


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (f"ref={TONE}@4&ref=acme/none", "no adapter acme/none"),
        (f"ref={TONE}@4&ref=//", "//"),
        (f"ref={TONE}@4&ref={SQL}@2&weight=nan", "the weight of"),
        (f"ref={TONE}@4&ref={SQL}@2&weight=0&weight=0", "all weights are 0"),
        (f"ref={TONE}@4&ref={SQL}@2&method=magic", "unknown method"),
        ("&".join([f"ref={TONE}@4"] * 9), "at most 8 adapters"),
    ],
)
def test_bad_input_is_explained(browser: Browser, query: str, says: str) -> None:
    answer = browser.get(f"{COMBINE}?{query}")
    assert answer.status == 400
    assert says in answer.body.decode().split("<main", 1)[1]


def test_adapters_of_other_bases_are_reported(browser: Browser) -> None:
    assert "different bases" in browser.get(f"{COMBINE}?ref={TONE}@4&ref={LEGAL}").body.decode()


def test_a_recipe_becomes_a_job_for_those_who_may_run_jobs_there(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    for name in ("tone", "style"):
        push(server.registry(), open_dir(tiny_lora(tmp_path / name)), f"acme/{name}")
    address = f"{COMBINE}?ref=acme/tone&ref=acme/style&method=ties&to=acme/both"
    browser = Browser(server)
    viewer = Browser(server, server.token("tom", "viewer", ("acme",)))
    denied = viewer.post(address, {"do": "run"})
    assert denied.status == 403
    assert "job.run" in denied.body.decode()
    assert browser.post(address, {"do": "run"}, Origin="https://evil.example").status == 403
    assert browser.post(address, {"do": "explode"}).status == 400
    assert server.registry().jobs.list().items == ()
    for do, kind in (("preview", "preview"), ("run", "combine")):
        answer = browser.post(address, {"do": do})
        assert answer.status == 303
        job = _newest(server)
        assert (job.kind, job.task["inputs"]) == (kind, ["acme/tone@1=1", "acme/style@1=1"])
        assert job.id in answer.headers["Location"]
    waiting = browser.get(address).body.decode()
    assert "reload the page" in waiting
    assert "Compute it as a job" not in waiting


def _newest(server: Server) -> JobInfo:
    return server.registry().jobs.list().items[0]


@pytest.mark.slow
def test_a_runner_computes_the_preview_and_makes_the_version(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    for seed, name in enumerate(("tone", "style")):
        push(server.registry(), open_dir(tiny_lora(tmp_path / name, seed=seed)), f"acme/{name}")
    address = f"{COMBINE}?ref=acme/tone&weight=0.7&ref=acme/style&weight=0.3&method=ties&to=acme/both"
    browser = Browser(server)
    for do in ("preview", "run"):
        assert browser.post(address, {"do": do}).status == 303
    assert RunnerProcess(server.data, "--once").wait() == 0
    found = browser.get(f"{address}&format=json").json["preview"]
    assert found["inputs"] == ["acme/tone@1", "acme/style@1"]
    assert 0 < found["conflict"] < 1
    assert "of the changes have opposite signs" in browser.get(address).body.decode()
    other = address.replace("0.7", "0.6")
    assert "not computed yet" in browser.get(other).body.decode()
    assert len(server.registry().versions.detail(Ref.parse("acme/both")).manifest.parents) == 2
    assert "acme/both@1" in browser.get(f"/-/jobs/{_newest(server).id}").body.decode()
