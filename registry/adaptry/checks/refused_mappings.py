"""Values inside the mappings of a LoRA's config (`eva_config`, `kasa_config`, …) that PEFT 0.21 refuses.

PEFT makes a dataclass of each mapping, and the dataclass's `__post_init__` raises an error. PEFT drops
unknown keys, except those of `monteclora_config`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.checks.refused_configs import Bound, keeps_bound
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class _NumberRange:
    """A number that must be within these bounds."""

    mapping: str
    key: str
    bounds: tuple[tuple[Bound, float], ...]


_NUMBERS = (
    _NumberRange("arrow_config", "top_k", (("above", 0),)),
    _NumberRange("arrow_config", "router_temperature", (("above", 0),)),
    _NumberRange("eva_config", "rho", (("at least", 1),)),
    _NumberRange("eva_config", "tau", (("at least", 0), ("at most", 1))),
    _NumberRange("kasa_config", "beta", (("at least", 0),)),
    _NumberRange("kasa_config", "gamma", (("at least", 0),)),
    _NumberRange("monteclora_config", "num_samples", (("above", 0),)),
    _NumberRange("monteclora_config", "dirichlet_prior", (("above", 0),)),
    _NumberRange("monteclora_config", "buffer_size", (("above", 0),)),
    _NumberRange("velora_config", "num_groups", (("above", 0),)),
    _NumberRange("velora_config", "scale", (("above", 0),)),
)
_VELORA_STARTS = ("batch_average", "batch_average_once", "random")
_OF_MONTECLORA = frozenset(
    ["num_samples", "use_entropy", "dirichlet_prior", "sample_scaler", "kl_loss_weight", "buffer_size"]
)
_BLOCKS = ("target_modules_bd_a", "target_modules_bd_b")


def refused_mapping_values(fields: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each refused value, without a full stop. (`Any`: JSON.)"""
    for number in _NUMBERS:
        mapping = fields.get(number.mapping)
        if not isinstance(mapping, dict) or number.key not in mapping:
            continue
        value = mapping[number.key]
        if not isinstance(value, int | float):
            written = "null" if value is None else str(value)[:40]
            yield f"{number.key} in {number.mapping} is {written}, but must be a number"
            continue
        for bound, limit in number.bounds:
            if not keeps_bound(value, bound, limit):
                yield f"{number.key} in {number.mapping} is {value:g}, but must be {bound} {limit:g}"
    velora = fields.get("velora_config")
    if isinstance(velora, dict) and velora.get("init_type", _VELORA_STARTS[0]) not in _VELORA_STARTS:
        yield f"PEFT does not know init_type {str(velora['init_type'])[:40]!a} in velora_config"
    monteclora = fields.get("monteclora_config")
    if isinstance(monteclora, dict):
        for key in sorted(monteclora.keys() - _OF_MONTECLORA):
            yield f"monteclora_config has the unknown key {key[:40]!a}, which PEFT refuses there"
    blocks = fields.get("use_bdlora")
    if isinstance(blocks, dict):
        yield from _of_bdlora(blocks)


def _of_bdlora(blocks: Mapping[str, Any]) -> Iterator[str]:
    if blocks.get("match_strict", True) and not any(map(blocks.get, _BLOCKS)):
        yield f"use_bdlora names no modules ({', '.join(_BLOCKS)})"
    first, second = (blocks[key] if isinstance(blocks.get(key), list) else [] for key in _BLOCKS)
    for name in first:
        if isinstance(name, str) and name in second:
            yield f"use_bdlora has {name[:40]!a} in both lists ({', '.join(_BLOCKS)})"
