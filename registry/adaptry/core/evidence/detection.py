"""Selects the reader for a results file: by name, and for other JSON files by content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.evidence import hugging_face, inspect_log, lm_eval, trackers
from adaptry.core.evidence.parsed_results import ParsedResults, read_json

README = "README.md"
_WANDB_SUMMARY = "wandb-summary.json"
_TRAINER_STATE = "trainer_state.json"
_MLFLOW = "metrics"
_ACCEPTED = (
    "results_….json of lm-eval, .eval_results/*.yaml, a README with a model-index, trainer_state.json,"
    " a .json log of Inspect, a metric file of MLflow, wandb-summary.json"
)


def read_results(data: bytes, path: PurePath, samples: Mapping[str, Digest] | None = None) -> ParsedResults:
    """Reads a results file of any kind; `samples`: samples files of the same run, by task.

    Raises `Invalid`, `Unavailable` (a process for parsing).
    """
    name = path.name
    if name == README:
        found = hugging_face.read_model_index(data, name)
        if found is None:
            raise Invalid(f"{name} has no results in a model-index at its head")
        return found
    if path.suffix in (".yaml", ".yml"):
        return hugging_face.read_eval_results(data, name)
    if path.suffix == ".json":
        return _read_json_file(data, name, samples)
    if _MLFLOW in path.parts[:-1]:
        folder = max(index for index, part in enumerate(path.parts[:-1]) if part == _MLFLOW)
        metric = "/".join(path.parts[folder + 1 :])
        return trackers.read_mlflow_metric(data, name, metric)
    raise Invalid(f"{name} is not a supported results file (accepted: {_ACCEPTED})")


def _read_json_file(data: bytes, name: str, samples: Mapping[str, Digest] | None) -> ParsedResults:
    document = read_json(data, name)
    if name == _WANDB_SUMMARY:
        return trackers.read_wandb_summary(document, name)
    if lm_eval.is_results(document):
        return lm_eval.read_results(document, name, samples)
    if inspect_log.is_log(document):
        return inspect_log.read_log(document, name)
    if "log_history" in document or name == _TRAINER_STATE:
        return trackers.read_trainer_state(document, name)
    raise Invalid(f"{name} is not a supported results file (accepted: {_ACCEPTED})")
