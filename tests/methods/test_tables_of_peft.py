"""Tables derived from PEFT and transformers match the installed versions."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import transformers
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import constants
from peft.utils import transformers_weight_conversion as peft_conversion
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from adaptry.adapters import peft_fields
from adaptry.adapters.config import AdapterConfig
from adaptry.bases.model_classes import (
    EXPERT_MATRICES,
    body_attribute,
    converts_adapters,
    expert_family,
    has_head,
)
from adaptry.checks.binding.default_targets import default_feedforward_modules, default_targets
from adaptry.checks.binding.targets import NO_EXCLUSION, NO_LAYERS
from adaptry.checks.ranks import DEFAULT_RANKS

from .peft_config_types import declared_by_peft

_KIND = re.compile(r"\b(?:bool|int|float|None|str|list|dict|set|Literal)\b")
METHODS = {kind.value.lower(): tuner for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
CONFIGS = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


@pytest.mark.parametrize("method", METHODS)
def test_the_modules_that_peft_adapts_by_itself(method: str) -> None:
    table = getattr(METHODS[method], "target_module_mapping", None) or {}
    if method == "ia3":
        table = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    found = {name: default_targets(method, name) for name in {*table, "llama", "gpt2", "nothing"}}
    wanted = {
        name: list(targets) if isinstance(targets, list) else targets for name, targets in table.items()
    }
    assert {name: targets for name, targets in found.items() if targets is not None} == wanted


def test_the_methods_without_fields_that_narrow_targets_are_listed() -> None:
    tuners = {name for name, config in CONFIGS.items() if "target_modules" in _kinds(config)} | {"xlora"}
    assert {name for name in tuners if "exclude_modules" not in _kinds(CONFIGS[name])} == NO_EXCLUSION
    assert {name for name in tuners if "layers_to_transform" not in _kinds(CONFIGS[name])} == NO_LAYERS


def test_the_methods_without_saved_modules_are_listed() -> None:
    for name, config in CONFIGS.items():
        written = AdapterConfig({"peft_type": name.upper(), "modules_to_save": ["lm_head"]})
        assert bool(written.saved_modules) is ("modules_to_save" in _kinds(config)), name


def test_the_ranks_of_configs_without_one() -> None:
    found = {
        name: fields["r"].default
        for name, config in CONFIGS.items()
        if "r" in (fields := config.__dataclass_fields__) and fields["r"].default
    }
    assert {name: rank for name, rank in found.items() if name not in ("lora", "adalora")} == DEFAULT_RANKS


def test_the_default_feedforward_modules_equal_pefts() -> None:
    table = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    assert {name: default_feedforward_modules(name) for name in table} == table
    assert default_feedforward_modules("qwen2_moe") is None


def test_the_families_that_fuse_targets_are_listed() -> None:
    found = {}
    for name in CONFIG_MAPPING_NAMES:
        family = peft_conversion._MODEL_TO_CONVERSION_PATTERN.get(name)
        fused = peft_conversion._MOE_FUSED_TARGETS.get(family, {})
        if fused and get_checkpoint_conversion_mapping(name) is not None:
            found[name] = family
    ours = {name: expert_family(name) for name in CONFIG_MAPPING_NAMES if expert_family(name)}
    assert ours == found
    assert peft_conversion._MOE_TARGET_MODULE_MAPPING == EXPERT_MATRICES


def test_the_types_of_config_fields_are_those_that_peft_declares() -> None:
    assert json.loads(Path(peft_fields.__file__).with_suffix(".json").read_text()) == declared_by_peft()


def test_models_for_which_peft_renames_an_adapters_tensors() -> None:
    found = {name for name in CONFIG_MAPPING_NAMES if get_checkpoint_conversion_mapping(name) is not None}
    assert {name for name in CONFIG_MAPPING_NAMES if converts_adapters(name)} == found


def test_the_attribute_that_holds_the_bare_model() -> None:
    wrong = {}
    for model_type in CONFIG_MAPPING_NAMES:
        found = Counter(filter(None, map(_body_of, _classes_with_head(model_type))))
        if found and body_attribute(model_type) not in found:
            wrong[model_type] = found
    assert wrong == {}


def _kinds(config: type) -> dict[str, set[str]]:
    """The types of each field, by name."""
    return {
        field.name: set(
            re.findall(r"\b(?:bool|int|float|None|str|list|dict|set|Literal|Optional)\b", str(field.type))
        )
        - {"Optional"}
        | ({"None"} if "Optional" in str(field.type) else set())
        for field in dataclasses.fields(config)
    }


def _classes_with_head(model_type: str) -> list[Any]:
    """(`Any`: transformers is not typed.)"""
    tables = [getattr(modeling_auto, name) for name in dir(modeling_auto) if name.endswith("_MAPPING_NAMES")]
    names = [table[model_type] for table in tables if model_type in table]
    flat = [each for name in names for each in ([name] if isinstance(name, str) else name)]
    found = [getattr(transformers, name, None) for name in flat if has_head(name)]
    return [each for each in found if each is not None]


def _body_of(model: Any) -> str:
    """The base_model_prefix of a class, if instances have such an attribute."""
    prefix = getattr(model, "base_model_prefix", "")
    owner = next(each for each in model.__mro__ if "__init__" in each.__dict__)
    try:
        source = inspect.getsource(owner.__init__)
    except (OSError, TypeError):  # a stand-in for a class whose packages are missing
        return ""
    return prefix if prefix and re.search(rf"self\.{prefix}\s*[:=]", source) else ""
