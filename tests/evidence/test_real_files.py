"""Results files written by the real programs are parsed with the meaning that those programs give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.core.errors import Invalid
from adaptry.core.evidence.detection import read_results
from adaptry.core.evidence.parsed_results import ParsedResults

REAL = Path(__file__).parent / "real"


def read(name: str) -> ParsedResults:
    path = REAL / name
    return read_results(path.read_bytes(), path)


def test_a_log_of_inspect_has_each_score_with_its_error_and_size() -> None:
    found = read("inspect.json")
    assert (found.format, found.harness, found.harness_version) == ("inspect", "inspect_ai", "0.3.285")
    assert {(one.task, one.task_version, one.n, one.dataset) for one in found.values} == {
        ("sums", "3", 6, "sums")
    }
    assert [(one.filter, one.metric, one.value) for one in found.values] == [
        ("match", "accuracy", 0.5),
        ("includes", "accuracy", 0.5),
        ("length", "mean", 1.0),
        ("right", "accuracy", 0.5),
    ]
    assert [one.stderr for one in found.values] == pytest.approx([0.2236068, 0.2236068, 0.0, 0.2236068])


def test_the_metrics_of_an_mlflow_run_are_curves() -> None:
    loss, accuracy = read("mlflow/metrics/eval/loss"), read("mlflow/metrics/accuracy")
    assert [(one.metric, one.step, one.value) for one in loss.values] == [
        ("eval/loss", step, pytest.approx(2 - step / 100)) for step in (0, 10, 20, 30, 40)
    ]
    assert [(one.metric, one.step) for one in accuracy.values] == [("accuracy", step) for step in range(5)]
    with pytest.raises(Invalid, match="finite value"):
        read("mlflow/metrics/bad")


def test_the_history_of_a_trainer_has_its_losses_and_no_bookkeeping() -> None:
    found = read("trainer_state.json")
    assert [(one.metric, one.step, one.direction) for one in found.values] == [
        *(("loss", step, "lower") for step in (3, 6, 9, 12)),
        ("eval_loss", 6, "lower"),
        ("eval_loss", 12, "lower"),
        ("train_loss", 12, "lower"),
    ]


def test_the_history_of_trl_has_what_it_measures_and_no_counters() -> None:
    found = read("trl_trainer_state.json")
    assert {one.metric for one in found.values} == {
        *("loss", "entropy", "mean_token_accuracy", "train_loss"),
        *("eval_loss", "eval_entropy", "eval_mean_token_accuracy"),
    }
    assert [(one.step, one.value) for one in found.values if one.metric == "eval_loss"] == [
        (3, pytest.approx(8.158761)),
        (6, pytest.approx(8.122212)),
    ]


def test_a_table_of_weights_and_biases_is_not_read() -> None:
    with pytest.raises(Invalid, match="not a supported results file"):
        read("wandb.table.json")
