"""Probes of engines that have the right adapter, none, or one whose scale they ignore."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="PEFT is the reference of a probe: pip install 'adaptry[probe]'")

from click.testing import CliRunner, Result

from adaptry_cli.main import main

from ..vllm import models
from . import engines

KINDS = [engines.vllm, engines.sglang, engines.llamacpp]
MODEL = {"llamacpp": "tone.gguf"}

Probed = Callable[..., Result]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    return models.adapter(tmp_path / "tone", config={"use_rslora": True})


@pytest.fixture
def probed(base: Path) -> Probed:
    def call(kind: engines.Answer, url: str, tone: Path, *more: str) -> Result:
        model = MODEL.get(kind.__name__, "acme/tone@prod")
        words = ["probe", str(tone), "--engine", url, "--base", str(base), "--model", model, *more]
        return CliRunner().invoke(main, words)

    return call


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_engine_that_answers_as_trained_is_reported_so(
    probed: Probed, base: Path, tone: Path, kind: engines.Answer
) -> None:
    with engines.answering(kind, base, tone) as url:
        found = probed(kind, url, tone)

    assert (found.exit_code, found.stdout) == (0, "as trained\n")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_engine_that_applies_nothing_is_detected(
    probed: Probed, base: Path, tone: Path, kind: engines.Answer
) -> None:
    with engines.answering(kind, base, None) as url:
        found = probed(kind, url, tone, "--json")

    told: dict[str, Any] = json.loads(found.stdout)
    assert (found.exit_code, told["outcome"], round(told["strength"], 3)) == (1, "no_op", 0)


def test_an_engine_that_ignores_the_scale_is_detected(
    probed: Probed, base: Path, tone: Path, tmp_path: Path
) -> None:
    weaker = models.adapter(tmp_path / "weaker")  # the same weights, without rsLoRA: half as strong at rank 4
    with engines.answering(engines.sglang, base, weaker) as url:
        found = probed(engines.sglang, url, tone)

    assert (found.exit_code, found.stdout) == (1, "differs from the reference\n")
    assert "of the change arrives" in found.stderr


def test_an_engine_of_another_base_proves_nothing(probed: Probed, tone: Path, tmp_path: Path) -> None:
    other = models.model(tmp_path / "other", seed=9)
    with engines.answering(engines.vllm, other, tone) as url:
        found = probed(engines.vllm, url, tone)

    assert (found.exit_code, found.stdout) == (1, "cannot tell\n")
    assert "name the base that is served" in found.stderr


def test_an_adapter_that_the_engine_does_not_know_is_not_found(
    probed: Probed, base: Path, tone: Path
) -> None:
    with engines.answering(engines.vllm, base, tone) as url:
        assert probed(engines.vllm, url, tone, "--model", "acme/other").exit_code == 3
    with engines.answering(engines.llamacpp, base, tone) as url:
        found = probed(engines.llamacpp, url, tone, "--model", "7")
        assert (found.exit_code, "choose one: --model NUMBER" in found.stderr) == (3, True)


def test_an_unreachable_and_an_unsupported_engine_are_reported(
    probed: Probed, base: Path, tone: Path
) -> None:
    assert probed(engines.vllm, "http://127.0.0.1:9", tone).exit_code == 6
    found = probed(engines.vllm, "http://127.0.0.1:9", tone, "--kind", "tgi", "--base-model", "x")
    assert found.exit_code == 2
    assert "does not support tgi (supported: vllm" in found.stderr
