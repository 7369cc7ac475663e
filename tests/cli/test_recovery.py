"""Rollbacks past a recall, sorted listings, the last two versions, mergekit recipes, watched jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.usefixtures("out", "better")


def test_a_rollback_past_a_recall_names_the_next_good_version(run) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    for number in (2, 3):
        run("push", str(tiny_lora(Path(f"./v{number}"), seed=number).absolute()), "acme/tone")
        run("promote", f"acme/tone@{number}")
    run("revoke", "acme/tone@2", "--reason", "it leaks addresses")

    refused = run("rollback", "acme/tone", code=4).stderr
    assert "acme/tone@2, where prod was before, is revoked" in refused
    command = refused.rpartition("adaptry ")[2].split()
    assert command == ["promote", "acme/tone@1", "--to", "prod"]
    run(*command)
    assert json.loads(run("show", "acme/tone@prod", "--json").stdout)["version"]["number"] == 1


def test_a_rollback_without_any_good_version_is_refused_with_the_reason(run) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", "./better", "acme/tone")
    run("promote", "acme/tone@2")
    run("yank", "acme/tone@1", "--reason", "wrong data")

    assert "no earlier version can be used" in run("rollback", "acme/tone", code=4).stderr


def test_a_listing_has_the_requested_order(run, answer) -> None:
    for name, folder in (("acme/b", "./out"), ("acme/c", "./better"), ("acme/a", "./out")):
        run("push", folder, name)
    run("push", "./better", "acme/a", "--metric", "accuracy=0.5")
    run("metrics", "log", "acme/a@1", "accuracy=0.9")

    def names(*words: str) -> list[str]:
        return [one["name"] for one in answer("ls", *words)]

    assert names("--sort", "name", "--reverse") == ["acme/c", "acme/b", "acme/a"]
    assert names("--sort", "versions")[0] == "acme/a"
    assert names("--sort", "updated", "--limit", "1") == ["acme/a"]
    assert [one["number"] for one in answer("ls", "acme/a", "--sort", "metric.accuracy")] == [1, 2]
    assert [one["number"] for one in answer("ls", "acme/a", "--sort", "rank")] == [2, 1]
    assert "showing the first 1; --limit shows more" in run("ls", "--sort", "updated", "--limit", "1").stderr


def test_versions_without_the_metric_come_last_in_both_directions(run, answer) -> None:
    run("push", "./out", "acme/a")
    run("push", "./better", "acme/a", "--metric", "accuracy=0.5")

    for words in ((), ("--reverse",)):
        assert [one["number"] for one in answer("ls", "acme/a", "--sort", "metric.accuracy", *words)] == [
            2,
            1,
        ]


def test_a_name_alone_compares_the_last_two_versions(run, answer) -> None:
    run("push", "./out", "acme/tone")
    assert "two are needed" in run("diff", "acme/tone", code=3).stderr
    run("push", "./better", "acme/tone")

    assert answer("diff", "acme/tone") == answer("diff", "acme/tone@1", "acme/tone@2")
    assert "nothing to compare acme/tone@1 with" in run("diff", "acme/tone@1", code=2).stderr


MERGEKIT = """
merge_method: ties
base_model: org/tiny
models:
  - model: org/tiny
  - model: org/tiny+./out
    parameters: {weight: 0.7}
  - model: org/tiny+./better
    parameters: {weight: 0.3}
parameters: {density: 0.5, normalize: true, int8_mask: true}
dtype: float16
tokenizer_source: base
"""


def test_mergekits_recipe_is_translated_and_gives_the_same_adapter_as_ours(run) -> None:
    pytest.importorskip("torch")
    Path("mergekit.yaml").write_text(MERGEKIT)

    told = run("combine", "--recipe", "mergekit.yaml", "-o", "./theirs").stderr

    assert "mergekit.yaml is mergekit's; read as this recipe:" in told
    assert "divide: weights" in told and "density: 0.5" in told
    words = ("--method", "ties", "--param", "density=0.5", "--param", "divide=weights", "--dtype", "float16")
    run("combine", "./out=0.7", "./better=0.3", *words, "-o", "./ours")
    ours, theirs = (Path(f"{name}/adapter_model.safetensors").read_bytes() for name in ("ours", "theirs"))
    assert ours == theirs


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"merge_method: ties": "merge_method: slerp"}, "method: nuslerp"),
        ({"density: 0.5": "density: [0.1, 0.9]"}, "depends on the layer"),
        ({"weight: 0.7": "weight: 0.7, density: 0.9"}, "density differs between the models"),
        (
            {"+./better": "", "org/tiny\n    parameters: {weight: 0.3}": "other/base+./better"},
            "different bases",
        ),
        ({"merge_method: ties": "merge_method: tise"}, "did you mean ties?"),
        ({"models:": "slices:"}, "slices"),
        ({"merge_method: ties": "merge_method: linear", "normalize: true": "normalize: false"}, None),
    ],
    ids=str,
)
def test_a_mergekit_recipe_that_adapters_cannot_express_is_refused_with_a_remedy(
    run, changed: dict[str, str], says: str | None
) -> None:
    pytest.importorskip("torch")
    text = MERGEKIT
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    Path("mergekit.yaml").write_text(text)

    if says is None:  # weights of 0.7 and 0.3 sum to 1, so the base is unchanged
        run("combine", "--recipe", "mergekit.yaml", "--dry-run")
    else:
        assert says in run("combine", "--recipe", "mergekit.yaml", "--dry-run", code=2).stderr


def test_jobs_are_watched_until_all_have_ended(run, answer) -> None:
    run("push", "./out", "acme/tone")
    assert "no job is queued or running" in run("jobs", "watch").stderr
    job = run("jobs", "submit", "verify").stdout.strip()
    run("jobs", "cancel", job)

    shown = run("jobs", "watch", job, code=1).stdout
    assert shown.split() == [job, "verify", "cancelled"]
    assert json.loads(run("jobs", "watch", job, "--json", code=1).stdout)["state"] == "cancelled"
