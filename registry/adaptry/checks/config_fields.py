"""Checks of the config alone: fields that are missing, unknown, or that PEFT refuses on any base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.config_schema import LORA_FIELDS
from adaptry.adapters.methods.lora_config import INITIALISATIONS, lora_variant
from adaptry.adapters.peft_fields import REQUIRED
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import shorten_names
from adaptry.core.report import Finding

_TASKS = frozenset(
    ["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]
)
_NEWEST_PEFT = (0, 21)
_NEVER_NULL = {
    "LORA": frozenset(["r", "lora_alpha"]),
    "LOHA": frozenset(["r", "alpha"]),
    "LOKR": frozenset(["r", "alpha"]),
}


def check_fields(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """Missing and unknown fields, and values with another meaning than in training."""
    needed = ("r", "lora_alpha") if spec.method == "lora" else ()
    missing = [key for key in needed if config.fields.get(key) is None]
    if spec.method == "lora" and not (
        config.fields.get("target_modules") or config.fields.get("target_parameters")
    ):
        missing.append("target_modules")
    if missing:
        yield build_finding("config_incomplete", f"adapter_config.json has no {', '.join(missing)}")
    unknown = sorted(set(config.fields) - LORA_FIELDS) if spec.method == "lora" else []
    if unknown:
        yield build_finding(
            "config_unknown", f"adapter_config.json has {shorten_names(_printable(unknown))}", unknown
        )
    targets = config.fields.get("target_modules")
    if isinstance(targets, str) and config.fields.get("layers_to_transform") is not None:
        yield build_finding(
            "layers_need_a_list",
            f"target_modules is the text {targets[:60]!a}, and layers_to_transform is set",
        )
    if spec.task is not None and spec.task not in _TASKS:
        yield build_finding("task_unknown", f"task_type is {spec.task[:40]!a}")
    if config.unknown_library is not None:
        yield build_finding(
            "library_unknown", f"the class of its model is from {config.unknown_library[:80]!a}"
        )
    version = re.match(r"(\d+)\.(\d+)", spec.peft_version or "")
    if version and (int(version[1]), int(version[2])) > _NEWEST_PEFT:
        newest = ".".join(map(str, _NEWEST_PEFT))
        yield build_finding(
            "newer_peft", f"written by PEFT {spec.peft_version}; these rules are for {newest}"
        )


def check_refused_fields(config: AdapterConfig) -> Iterator[Finding]:
    """Values for which PEFT raises an error on any base."""
    if config.peft_type == "BONE":
        yield build_finding(
            "method_retired", "since 0.19, PEFT has replaced Bone by MiSS and refuses peft_type BONE"
        )
    written = config.fields.get("peft_type")
    if written != config.peft_type:
        yield build_finding(
            "config_refused", f"peft_type is {str(written)[:40]!a}, but PEFT knows {config.peft_type}"
        )
    needed = REQUIRED | _NEVER_NULL.get(config.peft_type, frozenset())
    for key in sorted(needed & config.fields.keys()):
        if config.fields[key] is None:
            yield build_finding("config_refused", f"{key} is null")
    for key, value in config.fields.items():
        if key.endswith(("_seed", "_prng_key")) and type(value) is float:
            yield build_finding("config_refused", f"{key} is {value}, but a seed must be a whole number")
    if config.fields.get("r") == 0 and config.peft_type != "OFT":  # which may set a block size instead
        yield build_finding("config_refused", "r is 0")
    if config.peft_type == "IA3" and config.fields.get("feedforward_modules") is None:
        yield build_finding("config_refused", "feedforward_modules is not set, so PEFT uses its default list")
    if config.peft_type != "LORA":
        return
    start = lora_variant(config).initialisation
    if start and not INITIALISATIONS.fullmatch(start):
        yield build_finding("config_refused", f"PEFT does not know init_lora_weights {start[:40]!a}")


def _printable(names: Iterable[str]) -> list[str]:
    return [ascii(name[:60]) for name in names]
