"""Verdicts about runtimes over HTTP."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.checks.runtimes import ENGINES
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server, assert_problem

PATH = "/api/v1/adapters/acme/tone/versions/1/verdicts"


@pytest.fixture(autouse=True)
def rooted(registry: HttpRegistry, tmp_path: Path) -> None:
    """An adapter with rsLoRA, of rank 16."""
    push(registry, open_dir(tiny_lora(tmp_path / "rs", rank=16, config={"use_rslora": True})), "acme/tone")


def test_every_engines_verdict_is_shown(server: Server) -> None:
    answer = server.call("GET", PATH)
    assert answer.status == 200
    outcomes = {one["runtime"]: one["outcome"] for one in answer.json["verdicts"]}
    assert outcomes.keys() == ENGINES.keys()
    assert (outcomes["vllm"], outcomes["sglang"], outcomes["diffusers"]) == (
        "as_trained",
        "not_as_trained",
        "refused",
    )


def test_verdicts_are_limited_to_the_requested_runtimes(server: Server) -> None:
    asked = [quote(text) for text in ("vllm@0.33,max_lora_rank=8", "peft")]
    answer = server.call("GET", f"{PATH}?runtime={asked[0]}&runtime={asked[1]}")
    assert [one["outcome"] for one in answer.json["verdicts"]] == ["refused", "as_trained"]
    assert answer.json["verdicts"][0]["findings"][0]["code"] == "rank"
    assert (
        server.call("GET", PATH, headers={"If-None-Match": server.call("GET", PATH).headers["ETag"]}).status
        == 304
    )


def test_an_unknown_runtime_is_refused(server: Server) -> None:
    assert_problem(server.call("GET", f"{PATH}?runtime=triton"), 400, "invalid")


def test_only_readers_of_the_adapter_get_verdicts(server: Server) -> None:
    assert server.call("GET", PATH, token=None).status == 401
    assert server.call("GET", PATH.replace("/1/", "/9/")).status == 404
