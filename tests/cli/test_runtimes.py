"""`adaptry check --runtime` and `adaptry runtime`: verdicts about engines, with remedies."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora

RSLORA = {"use_rslora": True}
SCALED = {"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 12}}


@pytest.mark.usefixtures("out")
def test_a_check_for_a_runtime_shows_served_as_trained(run) -> None:
    shown = run("check", "./out", "--runtime", "vllm@0.33,max_lora_rank=16", "--runtime", "peft").stdout
    assert "vllm@0.33,max_lora_rank=16: loads and is served as trained" in shown
    assert "peft: loads and is served as trained" in shown


def test_an_engine_that_would_serve_it_altered_gives_exit_code_1(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "rs", config=RSLORA)
    shown = run("check", "./rs", "--runtime", "sglang", code=1).stdout
    assert "sglang: loads, but is not served as trained" in shown
    assert "→ write it with one plain scale: adaptry convert ./rs -o NAME" in shown
    found = answer("check", "./rs", "--runtime", "sglang", code=1)
    assert not found["blocked"]
    assert [one["outcome"] for one in found["verdicts"]] == ["not_as_trained"]


def test_a_version_is_checked_against_its_own_base(run, answer, base: Path, out: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    tiny_lora(out, layers=2, config={"base_model_name_or_path": "org/tiny"})
    run("push", "./out", "acme/tone")
    assert answer("check", "acme/tone", "--runtime", "vllm")["verdicts"][0]["outcome"] == "as_trained"


@pytest.mark.parametrize(
    ("config", "words"), [(RSLORA, ()), (SCALED, ("--uniform",))], ids=["rslora", "patterns"]
)
@pytest.mark.parametrize("engine", ["sglang", "llama.cpp", "ollama", "lmdeploy", "lorax"])
def test_the_remedy_leads_to_an_adapter_that_is_served_as_trained(
    run, tmp_path: Path, engine: str, config: dict[str, object], words: tuple[str, ...]
) -> None:
    pytest.importorskip("torch")
    tiny_lora(tmp_path / "wrong", config=config)
    run("check", "./wrong", "--runtime", engine, code=1)

    run("convert", "./wrong", *words, "-o", "./right")

    run("check", "./right", "--runtime", engine)


def test_too_large_a_rank_is_resized_to_one_that_the_server_accepts(run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tiny_lora(tmp_path / "large", rank=12)
    run("check", "./large", "--runtime", "vllm,max_lora_rank=8", code=1)

    run("resize", "./large", "--allowed", "8", "-o", "./small")

    run("check", "./small", "--runtime", "vllm,max_lora_rank=8")


def test_a_head_that_vllm_refuses_can_be_left_out(run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from adaptry.testing.samples import random_tensor

    head = {"base_model.model.lm_head.weight": random_tensor((32, 16), 7)}
    tiny_lora(tmp_path / "whole", extra=head, config={"modules_to_save": ["lm_head"]})
    run("check", "./whole", "--runtime", "vllm", code=1)

    run("convert", "./whole", "--whole-weights", "none", "-o", "./part")

    run("check", "./part", "--runtime", "vllm")


def test_an_unknown_runtime_is_a_usage_error(run, out: Path) -> None:
    assert (
        "max_lora_rank must be one of 1, 8, 16"
        in run("check", "./out", "--runtime", "vllm,max_lora_rank=7", code=2).stderr
    )


@pytest.mark.usefixtures("out", "better")
def test_a_plan_names_the_flags_and_their_memory(run, answer) -> None:
    result = run("runtime", "plan", "./out", "./better")
    assert (
        result.stdout == "--enable-lora --max-lora-rank 8 --max-loras 2 --lora-target-modules q_proj v_proj\n"
    )
    found = answer("runtime", "plan", "./out", "./better")
    # Four modules of 16 + 16 numbers, rank 8, two bytes each.
    assert (found["slot_bytes"], found["total_bytes"]) == (4 * 32 * 8 * 2, 2 * 4 * 32 * 8 * 2)
    assert found["runtime"] == "vllm,max_lora_rank=8"
    assert answer("runtime", "plan", "./out", "./better", "--slots", "1")["total_bytes"] == 4 * 32 * 8 * 2


@pytest.mark.usefixtures("out", "better")
def test_a_plan_for_sglang_counts_the_base(run) -> None:
    shown = run("runtime", "plan", "./out", "./better", "--runtime", "sglang").stdout
    assert "--max-lora-rank 8 --max-loras-per-batch 3" in shown


@pytest.mark.usefixtures("out")
def test_adapters_not_served_as_trained_are_left_out_of_the_plan(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "rs", rank=64, config=RSLORA)
    result = run("runtime", "plan", "./out", "./rs", "--runtime", "sglang", code=1)
    assert "--max-lora-rank 4 " in result.stdout
    assert "left out: rs" in result.stderr and "adaptry convert" in result.stderr
    assert (
        "would serve none of these adapters as trained"
        in run("runtime", "plan", "./rs", "--runtime", "sglang", code=1).stderr
    )


def test_the_engines_are_listed_with_the_version_that_was_read(run, answer) -> None:
    shown = run("runtime", "ls").stdout
    assert "vllm" in shown and "0.33.0" in shown and "lmdeploy" in shown
    assert "prefix cache" in run("runtime", "ls", "vllm").stdout
    (engine,) = answer("runtime", "ls", "vllm")
    assert all(rule["source"] for rule in engine["rules"])


def test_inspect_and_show_list_the_engines_that_serve_it_as_trained(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "rs", config=RSLORA)
    run("push", "./rs", "acme/rooted")
    for words in (("inspect", "./rs"), ("show", "acme/rooted")):
        shown = run(*words).stdout
        assert "as trained: vllm, tgi" in shown
        assert "not as trained: sglang (scale)" in shown
        assert answer(*words)["runtimes"]["sglang"] == {"outcome": "not_as_trained", "findings": ["scale"]}


def test_layout_excludes_options_that_change_weights(run, out: Path) -> None:
    refused = run("convert", "./out", "--layout", "transformers5", "--rank", "2", "-o", "./other", code=2)

    assert "--layout changes no weights" in refused.stderr
    assert not Path("other").exists()
