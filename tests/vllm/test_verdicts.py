"""Verdicts about vLLM compared with vLLM: each predicted wrong output occurs and its repair restores the
trained output, adapters with the verdict "refused" are refused, and those with "as trained" are served as
trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry_cli.main import main

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs

pytestmark = vllm_server.PYTHON.marks
ENGINE = "vllm@0.32,max_lora_rank=16"
WEIGHTS = "adapter_model.safetensors"


def outcome(base: Path, adapter: Path, runtime: str = ENGINE) -> str:
    return check_runtime(
        open_dir(adapter), parse_runtime(runtime), fingerprint(open_checkpoint(base))
    ).outcome


def prefixed(adapter: Path, folder: Path, prefix: str) -> Path:
    """The same adapter, with the module names of one that was trained inside a larger model."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / WEIGHTS)
    old, new = "base_model.model.model.", f"base_model.model.{prefix}model."
    save_file(
        {name.replace(old, new): value for name, value in tensors.items()}, folder / WEIGHTS, {"format": "pt"}
    )
    return folder


@pytest.fixture(scope="module")
def plain(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """vLLM without a registry."""
    return vllm_server.environment(site, tmp_path_factory.mktemp("home"))


CASES = {
    "plain": {},
    "rank 5": {"rank": 5},
    "rsLoRA": {"config": {"use_rslora": True}},
    "patterns": {"config": {"alpha_pattern": {"q_proj": 100}}},
    "rank 32": {"rank": 32},
    "DoRA": {"config": {"use_dora": True}},
    "bias": {"config": {"bias": "lora_only"}},
    "saved modules": {"config": {"modules_to_save": ["lm_head"]}},
    "PiSSA": {"config": {"init_lora_weights": "pissa"}},
}


def test_the_verdict_is_what_the_engine_does(plain: dict[str, str], tmp_path: Path) -> None:
    base = models.model(tmp_path / "base")
    made = {
        name: models.adapter(tmp_path / name.replace(" ", "-"), **options) for name, options in CASES.items()
    }  # type: ignore[arg-type]

    said, *answers = vllm_server.offline(plain, base, models.PROMPT, list(made.values()))

    assert said == close_to(models.said(base, None))
    for (name, adapter), answer in zip(made.items(), answers, strict=True):
        found = outcome(base, adapter)
        if isinstance(answer, str):
            assert found == "refused", (name, answer)
        else:
            assert found == "as_trained", name
            assert answer == close_to(models.said(base, adapter)), name


def test_a_wrong_prefix_has_no_effect_is_reported_and_works_when_exported(
    plain: dict[str, str], tmp_path: Path
) -> None:
    base = models.model(tmp_path / "base")
    right = models.adapter(tmp_path / "right")
    wrong = prefixed(right, tmp_path / "wrong", "language_model.")
    repaired = tmp_path / "repaired"
    words = ["export", str(wrong), "--for", ENGINE, "--base", str(base), "-o", str(repaired)]
    assert CliRunner().invoke(main, words).exit_code == 0

    said, as_wrong, as_right, as_repaired = vllm_server.offline(
        plain, base, models.PROMPT, [wrong, right, repaired]
    )

    assert as_wrong == said
    assert as_right == close_to(models.said(base, right))
    assert as_repaired == as_right
    assert [outcome(base, one) for one in (wrong, right, repaired)] == [
        "not_as_trained",
        "as_trained",
        "as_trained",
    ]


def test_target_modules_of_the_server_that_leave_an_adapter_out_are_found(
    plain: dict[str, str], tmp_path: Path
) -> None:
    base = models.model(tmp_path / "base")
    adapter = models.adapter(tmp_path / "adapter")

    said, answer = vllm_server.offline(plain, base, models.PROMPT, [adapter], lora_target_modules=["o_proj"])
    _, named = vllm_server.offline(
        plain, base, models.PROMPT, [adapter], lora_target_modules=["o_proj", "q_proj", "v_proj"]
    )

    assert answer == said
    assert named == close_to(models.said(base, adapter))
    assert outcome(base, adapter, f"{ENGINE},lora_target_modules=o_proj") == "not_as_trained"
    assert outcome(base, adapter, f"{ENGINE},lora_target_modules=q_proj+v_proj") == "as_trained"


@pytest.fixture(scope="module")
def engine(
    place: Place, plain: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[vllm_server.Vllm]:
    """A vLLM that loads adapters on request, with a prefix cache of short blocks."""
    allowing = {**plain, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    log = tmp_path_factory.mktemp("plain") / "vllm.log"
    with vllm_server.serving(
        vllm_server.PYTHON.python, place.base, allowing, log, ("--block-size", "32")
    ) as server:
        yield server


def load(engine: vllm_server.Vllm, name: str, folder: Path) -> None:
    body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
    answer = engine.ask("POST", "/v1/load_lora_adapter", body)
    assert answer.status == 200, answer.body


def test_a_reload_from_the_same_folder_is_stale_and_one_from_another_is_not(
    place: Place, engine: vllm_server.Vllm, tmp_path: Path
) -> None:
    prompt = "It was a dark and stormy night, and then"  # longer than a block of the prefix cache
    first, second = models.adapter(tmp_path / "1", seed=1), models.adapter(tmp_path / "2", seed=2)
    folder = shutil.copytree(first, tmp_path / "tone")
    old, new = (models.said(place.base, adapter, prompt=prompt) for adapter in (first, second))

    load(engine, "reloaded", folder)
    assert logprobs(engine.complete("reloaded", prompt)) == close_to(old)
    shutil.copy(second / WEIGHTS, folder / WEIGHTS)
    load(engine, "reloaded", folder)
    assert logprobs(engine.complete("reloaded", prompt)) != close_to(
        new
    )  # its first block belongs to the old weights

    load(engine, "reloaded", second)
    assert logprobs(engine.complete("reloaded", prompt)) == close_to(new)


def test_a_probe_distinguishes_an_adapter_with_an_effect_from_one_without(
    place: Place, engine: vllm_server.Vllm, tmp_path: Path
) -> None:
    right = models.adapter(tmp_path / "right")
    load(engine, "right", right)
    load(engine, "wrong", prefixed(right, tmp_path / "wrong", "language_model."))
    weaker = models.adapter(tmp_path / "weaker")
    config = json.loads((weaker / "adapter_config.json").read_text())
    (weaker / "adapter_config.json").write_text(
        json.dumps({**config, "lora_alpha": config["lora_alpha"] // 4})
    )
    load(engine, "weaker", weaker)

    def probed(model: str) -> str:
        words = ["probe", str(right), "--engine", engine.url, "--base", str(place.base), "--model", model]
        found = CliRunner().invoke(main, words)
        assert found.exit_code == (0 if model == "right" else 1), found.output
        return found.stdout.strip()

    assert probed("right") == "as trained"
    assert probed("wrong") == "no-op: the answers are the base's"
    assert probed("weaker") == "differs from the reference"
