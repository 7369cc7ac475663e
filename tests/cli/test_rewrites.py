"""Aliases as rewrite rules for a router: each rule's target is a name that the engine lists."""

from __future__ import annotations

from pathlib import Path

import yaml

from adaptry.testing.samples import tiny_lora

from .conftest import Run


def test_aliases_and_rollouts_are_printed_as_rewrites(run: Run, out: Path, tmp_path: Path) -> None:
    old = run("push", "./out", "acme/tone", "--alias", "prod").stdout.split()[-1][:19]
    new = run(
        "push", str(tiny_lora(tmp_path / "new", seed=2)), "acme/tone", "--alias", "next"
    ).stdout.split()[-1][:19]
    run("rollout", "start", "acme/tone@prod", "--to", "2", "--percent", "10")
    found = yaml.safe_load(run("alias", "rewrites", "acme/*@*", "--pool", "vllm").stdout)
    assert (found["apiVersion"], found["kind"]) == ("llm-d.ai/v1alpha2", "InferenceModelRewrite")
    assert found["spec"]["poolRef"]["name"] == "vllm"
    assert [(one["matches"][0]["model"], one["targets"]) for one in found["spec"]["rules"]] == [
        ({"type": "Exact", "value": "acme/tone@next"}, [{"modelRewrite": f"acme/tone@{new}"}]),
        (
            {"type": "Exact", "value": "acme/tone@prod"},
            [
                {"modelRewrite": f"acme/tone@{old}", "weight": 90},
                {"modelRewrite": f"acme/tone@{new}", "weight": 10},
            ],
        ),
    ]


def test_withdrawn_versions_and_unknown_aliases_have_no_rewrite(run: Run, out: Path) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    assert "is not an alias" in run("alias", "rewrites", "acme/tone@1", "--pool", "vllm", code=2).stderr
    run("revoke", "acme/tone@1", "--reason", "for a test")
    shown = run("alias", "rewrites", "acme/tone@prod", "--pool", "vllm")
    assert yaml.safe_load(shown.stdout)["spec"]["rules"] == []
    assert "no alias matches" in shown.stderr
