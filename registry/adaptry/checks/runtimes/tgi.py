"""What TGI takes: LoRAX's code, with a fixed list of modules and adapters that are named when it starts."""

from __future__ import annotations

from adaptry.checks.runtimes import base_conditions, repairs, scales, shared
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.lorax import UNEVEN
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules, ServerNeeds

_MAPPED = "adapters/lora.py · map_weights_for_model (LoRAX's)"
_MODULES = frozenset(
    [
        *(
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
        ),
        "lm_head",
    ]
)


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("--lora-adapters", "NAME=DIR,…")


TGI = RuntimeRules(
    name="tgi",
    title="TGI",
    source_version="db931fc",
    tested_against="the rules, as read: `text-generation-server` is not on PyPI",
    latest=(3, 3),
    preconditions=(shared.peft_files("utils/adapter.py"), shared.only_lora("adapters/ has LoRA only")),
    rules=(
        shared.dora("changes", _MAPPED),
        shared.scale(
            scales.of_config_rooted,
            "`alpha_pattern` or `rank_pattern`: one scale for all",
            "adapters/lora.py",
        ),
        shared.saved_modules("changes", _MAPPED),
        shared.copied_embeddings(_MAPPED),
        shared.token_rows("changes", _MAPPED),
        shared.biases("changes", _MAPPED),
        shared.unmatched("changes", _MAPPED),
        shared.variants("changes", _MAPPED),
        shared.starts_from_base("changes", _MAPPED),
        shared.fused_experts("changes", _MAPPED),
        RuntimeRule(
            "targets_unknown",
            "changes",
            "modules beyond q, k, v, o, gate, up, down, c_fc, c_proj, lm_head",
            when.targets_beyond(_MODULES),
            repairs.MERGE,
            "utils/adapter.py",
        ),
        RuntimeRule(
            "names",
            "changes",
            "module names that the base does not have on disk",
            base_conditions.names_not_on_disk,
            repairs.CONVERT_LAYOUT,
            _MAPPED,
        ),
        UNEVEN,
    ),
    warnings=(
        "A request that names an adapter it does not know was answered by the base (#2505).",
        "Adapters are named when it starts; none is loaded later. It is in maintenance mode.",
        "The base is compared by architecture, and not at all for a local path.",
    ),
    start=_start,
)
