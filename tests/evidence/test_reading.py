"""Results files are parsed as programs write them; a malformed or too large file gives a clear error."""

from __future__ import annotations

import json
from pathlib import PurePath

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.evidence.detection import read_results
from adaptry.core.evidence.lm_eval import MAX_LINE, read_samples, split_lines
from adaptry.core.evidence.parsed_results import ParsedResults
from adaptry.core.evidence.values import MAX_VALUES

LM_EVAL = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.71,
            "exact_match_stderr,strict-match": 0.0125,
            "exact_match,flexible-extract": 0.74,
            "exact_match_stderr,flexible-extract": "N/A",
        },
        "wikitext": {"word_perplexity,none": float("nan"), "bits_per_byte,none": 0.9},
    },
    "higher_is_better": {"gsm8k": {"exact_match": True}, "wikitext": {"bits_per_byte": False}},
    "n-samples": {"gsm8k": {"original": 1319, "effective": 100}},
    "versions": {"gsm8k": 3.0},
    "task_hashes": {"gsm8k": "9497"},
    "configs": {
        "gsm8k": {"dataset_path": "openai/gsm8k"},
        "wikitext": {"dataset_path": "/home/someone/private/wiki"},
    },
    "config": {"model_args": {"pretrained": "/home/someone/base"}, "peft_sha": "0" * 40},
    "git_hash": "9f2c1e",
    "chat_template_sha": None,
    "lm_eval_version": "0.4.13",
}


def read(document: object, name: str, **options: dict[str, Digest]) -> ParsedResults:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_results(data, PurePath("/runs") / name, **options)


def test_lm_eval_states_filter_error_size_direction_and_task() -> None:
    samples = Digest.of(b"samples")
    found = read(LM_EVAL, "results_2026-11-28T10-00-00.1.json", samples={"gsm8k": samples})
    strict, flexible, bits = found.values
    assert (strict.task, strict.task_version, strict.task_hash) == ("gsm8k", "3.0", "9497")
    assert (strict.metric, strict.filter, strict.value) == ("exact_match", "strict-match", 0.71)
    assert (strict.stderr, strict.n, strict.direction) == (0.0125, 100, "higher")
    assert (strict.dataset, strict.samples) == ("openai/gsm8k", samples)
    assert (flexible.filter, flexible.stderr) == ("flexible-extract", None)
    assert (bits.metric, bits.filter, bits.direction, bits.n) == ("bits_per_byte", None, "lower", None)
    assert (found.harness, found.harness_version, found.harness_commit) == ("lm-eval", "0.4.13", "9f2c1e")
    assert found.revision == "0" * 40


def test_values_contain_no_paths_of_the_evaluating_machine() -> None:
    assert "someone" not in repr(read(LM_EVAL, "results.json"))


def test_the_values_of_single_documents_are_read_from_samples() -> None:
    lines = [
        {"doc_id": 0, "doc_hash": "aa", "filter": "strict", "metrics": ["acc"], "acc": 1.0},
        {"doc_id": 1, "doc_hash": "bb", "filter": "strict", "metrics": ["acc"], "acc": float("nan")},
    ]
    data = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
    pieces = [data[start : start + 7] for start in range(0, len(data), 7)]
    first, second = read_samples(split_lines(pieces), "samples.jsonl")
    assert (first.key, first.filter, first.scores) == ("aa", "strict", {"acc": 1.0})
    assert (second.key, second.scores) == ("bb", {})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"{}"], "line 1 of s is not a document"),
        ([b'{"metrics": []}'], "line 1 of s has neither doc_hash nor doc_id"),
        ([b"", b"[" * 100_000], "line 2 of s is not JSON"),
        ([b" " * (MAX_LINE + 1)], "line 1 of s is longer than 8 MiB"),
    ],
    ids=["another form", "no document", "deep", "long"],
)
def test_malformed_samples_are_refused_with_their_line(lines: list[bytes], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        list(read_samples(lines, "s"))


def test_a_trainers_history_is_curves_without_bookkeeping() -> None:
    log = [
        {"step": 10, "epoch": 0.1, "loss": 2.5, "grad_norm": float("nan"), "learning_rate": 1e-4},
        {"step": 20, "epoch": 0.2, "loss": 2.1, "mean_token_accuracy": 0.6, "num_tokens": 99.0},
        {"step": 20, "epoch": 0.2, "eval_loss": 2.2, "eval_runtime": 1.0, "eval_samples_per_second": 3.0},
        {"step": 20, "train_loss": 2.3, "total_flos": 1.0, "train_runtime": 8.0},
    ]
    found = read({"log_history": log}, "trainer_state.json")
    assert [(one.metric, one.step, one.value, one.direction) for one in found.values] == [
        ("loss", 10, 2.5, "lower"),
        ("loss", 20, 2.1, "lower"),
        ("mean_token_accuracy", 20, 0.6, "unknown"),
        ("eval_loss", 20, 2.2, "lower"),
        ("train_loss", 20, 2.3, "lower"),
    ]
    assert {one.task for one in found.values} == {"training"}


def test_a_long_history_is_thinned_evenly_and_keeps_its_ends() -> None:
    log = [{"step": step, "loss": 1.0 + step, "eval_loss": 2.0 + step} for step in range(30_000)]
    values = read({"log_history": log}, "trainer_state.json").values
    assert len(values) == MAX_VALUES
    losses = [one.step for one in values if one.metric == "loss"]
    assert (len(losses), losses[0], losses[-1]) == (MAX_VALUES // 2, 0, 29_999)


def test_results_of_the_hub_are_read_from_yaml_and_from_a_readme() -> None:
    yaml = b"- dataset: {id: openai/gsm8k, task_id: gsm8k, revision: abc}\n  value: 71.5\n  notes: few\n"
    (result,) = read(yaml, ".eval_results/gsm8k.yaml").values
    assert (result.task, result.dataset, result.task_version) == ("gsm8k", "openai/gsm8k", "abc")
    assert (result.metric, result.value, result.direction) == ("value", 71.5, "unknown")
    readme = (
        b"---\nmodel-index:\n- name: tone\n  results:\n  - task: {type: text-generation}\n"
        b"    dataset: {type: cais/mmlu, name: MMLU}\n    metrics: [{type: acc, value: 0.5}]\n---\n# Tone\n"
    )
    (indexed,) = read(readme, "README.md").values
    assert (indexed.task, indexed.dataset) == ("text-generation", "cais/mmlu")
    assert (indexed.metric, indexed.value) == ("acc", 0.5)
    with pytest.raises(Invalid, match="has no results in a model-index"):
        read(b"# Tone\n", "README.md")


def test_a_log_of_inspect_is_read_unless_it_failed() -> None:
    log = {
        "version": 2,
        "status": "success",
        "eval": {
            "task": "gsm8k",
            "task_version": 0,
            "dataset": {"name": "openai/gsm8k"},
            "revision": {"commit": "9f2c1e"},
            "packages": {"inspect_ai": "0.3.140"},
        },
        "results": {
            "completed_samples": 50,
            "scores": [{"name": "match", "metrics": {"accuracy": {"value": 0.7}, "stderr": {"value": 0.06}}}],
        },
    }
    found = read(log, "2026-11-28T10-00-00_gsm8k.json")
    (accuracy,) = found.values
    assert (accuracy.task, accuracy.metric, accuracy.filter) == ("gsm8k", "accuracy", "match")
    assert (accuracy.value, accuracy.stderr, accuracy.n) == (0.7, 0.06, 50)
    assert (found.harness, found.harness_version, found.harness_commit) == ("inspect_ai", "0.3.140", "9f2c1e")
    with pytest.raises(Invalid, match=r"did not succeed \(error\)"):
        read({**log, "status": "error"}, "failed.json")


def test_metrics_of_experiment_trackers_are_read() -> None:
    mlflow = read(
        b"1700000000000 2.5 10\n1700000000001 nan 15\n1700000000002 2.1 20\n", "r/metrics/eval/loss"
    )
    assert [(one.metric, one.step, one.value) for one in mlflow.values] == [
        ("eval/loss", 10, 2.5),
        ("eval/loss", 20, 2.1),
    ]
    summary = {"_step": 20, "_runtime": 3, "eval/loss": 2.1, "eval/runtime": 1.0, "table": {"_type": "t"}}
    wandb = read(summary, "wandb-summary.json")
    assert [(one.metric, one.step) for one in wandb.values] == [("eval/loss", 20), ("eval/runtime", 20)]


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"{", "results_1.json", "results_1.json is not JSON"),
        (b"[]", "trainer_state.json", "trainer_state.json is not a JSON object"),
        (b'{"log_history": 3}', "trainer_state.json", "has no log_history"),
        (b'{"log_history": [{"loss": NaN}]}', "trainer_state.json", "finite value"),
        (b"{}", "config.json", "not a supported results file"),
        (b"1 2 3", "notes.txt", "not a supported results file"),
        (b"one two\n", "metrics/loss", "line 1 of loss is not a time"),
        (b"1 2 99999999999999999999\n", "metrics/loss", "finite value|step"),
        (b"value: 1\n", "x.yaml", "is not a list of results"),
        (b"[" * 200, "a.json", "nested deeper than 64 levels"),
    ],
)
def test_an_unreadable_results_file_is_refused_with_a_sentence(data: bytes, name: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read(data, name)


def test_a_file_with_too_many_values_is_refused() -> None:
    many = {f"task{number}": {"acc,none": 0.5} for number in range(MAX_VALUES + 1)}
    with pytest.raises(Invalid, match="1,001 values; at most 1,000"):
        read({"results": many, "lm_eval_version": "0.4.13"}, "results_1.json")


GREEDY = {"until": ["\n"], "do_sample": False}


def settings(task: str = "gsm8k", **changes: object) -> str | None:
    """The settings that a results file states for a task: lm-eval 0.4.13 writes these fields."""
    run = {
        "n-shot": {"gsm8k": 5, "wikitext": 0},
        "configs": {"gsm8k": {"generation_kwargs": GREEDY}},
        "config": {"fewshot_seed": 1234},
        "system_instruction_sha": None,
        "fewshot_as_multiturn": True,
    }
    read_values = read({**LM_EVAL, **run, **changes}, "results_2026-11-28T10-00-00.1.json").values
    (found,) = {one.settings for one in read_values if one.task == task}
    return found


def test_lm_eval_states_how_a_task_was_run() -> None:
    assert settings("wikitext") == "0-shot"
    usual = settings()
    assert usual is not None
    assert usual.startswith("5-shot; seed 1234; generation ")
    for change in (
        {"n-shot": {"gsm8k": 0}},
        {"config": {"fewshot_seed": 1}},
        {"configs": {"gsm8k": {"generation_kwargs": {**GREEDY, "temperature": 1.0}}}},
        {"system_instruction_sha": "5dd2"},
        {"chat_template_sha": "cafe"},
    ):
        assert settings(**change) not in (usual, None)
    assert settings(fewshot_as_multiturn=False) == usual, "without a chat template, there are no turns"


@pytest.mark.parametrize(
    "stated", [{}, None, {"gsm8k": None}, {"gsm8k": "5"}, {"gsm8k": -1}, {"gsm8k": True}]
)
def test_settings_are_not_guessed(stated: object) -> None:
    assert settings(**{"n-shot": stated}) is None


def test_a_group_has_the_settings_of_its_tasks() -> None:
    results = {"results": {"all": {"acc,none": 0.5}}}
    same = {"group_subtasks": {"all": ["some", "c"], "some": ["a", "b", "some", "all"]}}
    assert settings("all", **results, **same, **{"n-shot": dict.fromkeys("abc", 0)}) == "0-shot"
    mixed = settings("all", **results, **same, **{"n-shot": {"a": 0, "b": 0, "c": 5}})
    assert mixed is not None
    assert mixed.startswith("mixed ")
    assert settings("all", **results, **same, **{"n-shot": {"a": 0, "b": 5, "c": 5}}) not in (mixed, None)
    assert settings("all", **results, **same, **{"n-shot": {"a": 0, "b": 0}}) is None
