"""A config is reported as refused exactly if PEFT's config class raises an error for it.

For every method, fields get random unusual values, and PEFT's config class is created from the same fields.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("peft")

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from adaptry.adapters.config import parse_config
from adaptry.checks.refused_configs import refused_fields
from adaptry.core.errors import InvalidConfig

_ODD: dict[str, list[Any]] = {
    "target_modules": [["q_proj", "v_proj"], ".*q_proj"],
    "layers_to_transform": [None, [0], 1],
    "layers_pattern": [None, [], "layers"],
    "feedforward_modules": [[], ["q_proj"], ["down_proj"], ".*down_proj"],
    "r": [1, 4, 6, 7],
    "boft_block_size": [0, 4],
    "boft_block_num": [0, 4],
    "oft_block_size": [0, 4],
    "gralora_k": [-1, 0, 1, 3],
    "total_step": [None, -1, 0, 1, 10],
    "tinit": [0, 3],
    "tfinal": [0, 7],
    "orth_reg_weight": [-1, 0, 0.5],
    "use_dora": [True, False],
    "lora_bias": [True, False],
    "init_lora_weights": [True, False, "gaussian", "loftq", "pissa"],
    "loftq_config": [{}, {"loftq_bits": 4}],
    "init_weights": [None, True, False, "orthogonal", "other"],
    "use_asa": [True, False],
    "init_warmup": [0, 50, 2000],
    "mask_interval": [0, 1],
    "asa_target_subspaces": [0, 1],
    "asa_schedule_exponent": [-1.0, 1.0],
    "stride_A": [0, 1],
    "num_B": [1, 2],
    "sparse_rate": [-0.1, 0, 1, 1.5],
    "config_A_B": ["lora", "constant", "other"],
    "config_C": ["lora", "constant"],
    "config_D_E": ["lora", "constant"],
    "sparsity": [0, 0.5, 1.0],
    "lora_alpha": [4],
    "theta_d_length": [0, 8],
    "unilora_dropout": [0, 1.1],
    "init_theta_d_bound": [0, 0.1],
    "bias": ["none", "all"],
    "variant": ["road_1", "road_3"],
    "group_size": [0, 3, 4],
    "ab_svd_init": ["psoft_init", "pissa_init", "other"],
    "psoft_svd": ["full", "other"],
    "use_cayley_neumann": [True, False],
    "num_cayley_neumann_terms": [0, 5],
    "cayley_neumann_eps": [None, 0.5, 1.5],
    "depth": [-1, 1],
    "act_fn": ["relu", "gelu_10", "other"],
    "wavelet_family": ["db1", "sym2", "other"],
    "u": [0, 4],
    "weight_tying": [-0.5, 0.5, 2],
    "num_frozen_tokens": [-1, 1, 9],
    "num_virtual_tokens": [4],
    "task_type": ["CAUSAL_LM", "SEQ_CLS"],
    "prompt_tuning_init": ["RANDOM", "TEXT"],
    "prompt_tuning_init_text": [None, "text"],
    "tokenizer_name_or_path": [None, "tokenizer"],
    "tokenizer_kwargs": [None, {"use_fast": True}],
}

_LATER = {
    "HIRA": {"init_weights"},
    "BOFT": {"init_weights"},
    "C3A": {"init_weights"},
    "OFT": {"init_weights", "num_cayley_neumann_terms"},
}
"""Fields whose values PEFT refuses when it makes the modules (`test_odd_values.py` asks it then)."""


@pytest.mark.parametrize("method", sorted(kind.name for kind in PEFT_TYPE_TO_CONFIG_MAPPING))
def test_a_config_is_refused_if_peft_raises_an_error(method: str) -> None:
    wrong = []
    for fields in _generated(method, 150):
        theirs, ours = _ask_peft(fields), _ask_us(fields)
        if bool(theirs) is not bool(ours):
            wrong.append(f"{fields}: PEFT {theirs or 'makes it'}; we {ours or 'say nothing'}")
    assert wrong[:3] == []


def _generated(method: str, count: int) -> Iterator[dict[str, Any]]:
    source = random.Random(method)
    known = {kind.name: kind for kind in PEFT_TYPE_TO_CONFIG_MAPPING}[method]
    its_own = PEFT_TYPE_TO_CONFIG_MAPPING[known].__dataclass_fields__.keys() - _LATER.get(method, set())
    names = sorted(_ODD.keys() & its_own)
    for _ in range(count):
        fields: dict[str, Any] = {"peft_type": method, "task_type": "CAUSAL_LM"}
        fields |= {"target_modules": ["q_proj", "down_proj"]} if "target_modules" in names else {}
        fields |= {"feedforward_modules": []} if method == "IA3" else {}
        fields |= {"total_step": 100} if method == "ADALORA" else {}
        for name in source.sample(names, min(len(names), source.choice([1, 1, 2, 3, 5]))):
            fields[name] = source.choice(_ODD[name])
        yield fields


def _ask_peft(fields: dict[str, Any]) -> str:
    with warnings.catch_warnings(action="ignore"):
        try:
            PeftConfig.from_peft_type(**fields)  # type: ignore[no-untyped-call]  # PEFT is not typed
        except (ValueError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
    return ""


def _ask_us(fields: dict[str, Any]) -> str:
    try:
        config = parse_config(json.dumps(fields).encode())
    except InvalidConfig as error:
        return error.message
    return "; ".join(found.reason for found in refused_fields(config))
