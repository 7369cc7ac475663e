"""An adapter's config is untrusted input: parsed strictly, and refused if it makes a loader run code."""

from __future__ import annotations

import json

import pytest

from adaptry.adapters.config import parse_config
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.core.errors import InvalidConfig

LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


def config_of(**fields: object) -> bytes:
    return json.dumps(LORA | fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf{}",
        b'{"r":8,"r":1000000000}',
        b'{"r":NaN}',
        b'{"r":1e400}',
        b'{"r":' + b"9" * 5000 + b"}",
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        config_of(target_modules=["x"] * 1_000_000),
        config_of(auto_map={"AutoModel": "evil.Model"}),
        config_of(auto_mapping={"parent_library": "os"}),
        config_of(auto_mapping={"parent_library": "importlib.util"}),
        config_of(auto_mapping={"parent_library": "../evil"}),
        config_of(auto_mapping={"parent_library": ["torch"]}),
        config_of(megatron_core="evil"),
        config_of(megatron_config={"x": 1}),
        config_of(_attn_implementation_internal="org/kernel"),
        config_of(trust_remote_code=True),
        config_of(corda_config={"cache_file": "/tmp/x.pt"}),
        config_of(target_modules=["a\x00b"]),
        config_of(target_modules="x" * 2000),
    ],
)
def test_a_dangerous_config_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidConfig, match=r"adapter_config\.json"):
        parse_config(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", 5),
        ("task_type", 5),
        ("bias", 7),
        ("bias", "some"),
        ("use_rslora", "yes"),
        ("use_dora", 1),
        ("fan_in_fan_out", "true"),
        ("rank_pattern", ["q_proj"]),
        ("init_lora_weights", 3),
        ("layers_to_transform", [-1]),
        ("layers_to_transform", "all"),
        ("layer_replication", [[0, 1_000_000_000]]),
        ("layer_replication", [[0, 600], [0, 600]]),
        ("layer_replication", [[2, 1]]),
        ("layer_replication", [0, 4]),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidConfig, match=rf"{field} must be .*, not "):
        parse_config(config_of(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bias", "lora_only"),
        ("init_lora_weights", "pissa_niter_4"),
        ("layers_to_transform", 3),
        ("layers_to_transform", [0, 3]),
        ("layer_replication", [[0, 16], [8, 24]]),
        ("rank_pattern", None),
    ],
)
def test_configs_that_peft_can_write_are_accepted(field: str, value: object) -> None:
    assert parse_config(config_of(**{field: value})).fields[field] == value


@pytest.mark.parametrize("rank", [0, -1, True, 8.0, "8", 10**9])
def test_a_rank_is_a_plausible_whole_number(rank: object) -> None:
    with pytest.raises(InvalidConfig, match="r must be a whole number"):
        parse_config(config_of(r=rank)).rank()


def test_pefts_default_config_is_accepted() -> None:
    config = parse_config(config_of(megatron_core="megatron.core", megatron_config=None, auto_mapping=None))
    assert (config.rank(), config.peft_type) == (8, "LORA")


def test_scale_is_alpha_over_rank_and_over_its_root_with_rslora() -> None:
    plain = parse_config(config_of(rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 2}))
    assert scale_of(plain, "model.q_proj") == (4.0, 16, 4)
    assert scale_of(plain, "model.v_proj") == (0.25, 2, 8)
    assert scale_of(parse_config(config_of(use_rslora=True, r=16)), "x")[0] == 4.0
