"""Rules of TGI: LoRAX's code, with a fixed list of modules, and adapters that are named when the server
starts.
"""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import repairs, scales, shared
from adaptry.checks.runtimes.lorax import rules_of_mapping
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules, ServerNeeds

_MAPPED = "adapters/lora.py · map_weights_for_model (LoRAX's)"
_MODULES = frozenset(
    [
        "q_proj",
        "k_proj",
        "v_proj",
        "qkv_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "c_fc",
        "c_proj",
        "lm_head",
    ]
)


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("--lora-adapters", "NAME=DIR,…")


TGI = RuntimeRules(
    name="tgi",
    title="TGI",
    source_version="db931fc",
    tested_against="nothing, the source was only read: `text-generation-server` is not on PyPI",
    latest=(3, 3),
    preconditions=(shared.peft_files("utils/adapter.py"), shared.only_lora("adapters/ has LoRA only")),
    rules=rules_of_mapping(
        _MAPPED,
        shared.scale(
            scales.of_config_with_rslora,
            "`alpha_pattern` or `rank_pattern`: one scale for all",
            "adapters/lora.py",
        ),
        shared.fused_experts("changes", _MAPPED),
        RuntimeRule(
            "targets_unknown",
            "changes",
            "modules beyond q, k, v, o, gate, up, down, c_fc, c_proj, lm_head",
            when.targets_beyond(_MODULES),
            repairs.MERGE,
            "utils/adapter.py",
        ),
    ),
    warnings=(
        "The base answers a request that names an unknown adapter (#2505).",
        "Adapters are given at start; none can be loaded later. TGI is in maintenance mode.",
        "The base is compared by architecture, and not at all for a local path.",
    ),
    start=_start,
)
