"""What LoRAX takes. It looks up names it knows, and drops what it does not find with a warning at most."""

from __future__ import annotations

from adaptry.checks.runtimes import base_conditions, limits, names_read, repairs, scales, shared
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_MAPPED = "adapters/lora.py · map_weights_for_model"
_LAYERS = "adapters/lora.py · LoraWeights.load returns nothing for a layer type that one layer lacks"
_PINNED = "adapters/lora.py, with a hasattr guard; pyproject pins peft 0.4.0, which has no use_rslora"

_UNEVEN = RuntimeRule(
    "layers_uneven",
    "changes",
    "a module that not all layers have an update for: it is left out in all",
    base_conditions.uneven_layers,
    repairs.FILL_LAYERS,
    _LAYERS,
)


def rules_of_mapping(mapped: str, scale: RuntimeRule, *own: RuntimeRule) -> tuple[RuntimeRule, ...]:
    """What comes of looking up the base's names; `own` are rules of one engine. TGI has this code too."""
    return (
        shared.dora("changes", mapped),
        scale,
        shared.saved_modules("changes", mapped),
        shared.copied_embeddings(mapped),
        shared.token_rows("changes", mapped),
        shared.trained_biases("changes", mapped),
        shared.unmatched("changes", mapped),
        shared.inner_names("changes", f"{mapped} looks for lora_A.weight and lora_B.weight"),
        shared.wrapped_names("changes", mapped),
        shared.variants("changes", mapped),
        shared.starts_from_base("changes", mapped),
        *own,
        RuntimeRule(
            "names",
            "changes",
            "module names that the base does not have on disk",
            names_read.not_in_base(names_read.one_prefix),
            repairs.DISK_NAMES,
            mapped,
        ),
        _UNEVEN,
    )


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("--max-active-adapters", str(needs.count)) if needs.count > 1024 else ()


LORAX = RuntimeRules(
    name="lorax",
    title="LoRAX",
    source_version="a7394ba",
    tested_against="the rules, as read: `lorax-server` is not on PyPI",
    preconditions=(
        shared.peft_files("utils/adapter.py · download_adapter"),
        shared.only_lora("adapters/ has LoRA and Medusa only"),
    ),
    rules=(
        *rules_of_mapping(
            _MAPPED,
            shared.scale(
                scales.of_config, "rsLoRA or patterns: the scale is `lora_alpha / r` for all", _PINNED
            ),
            shared.embeddings("changes", _MAPPED),
            shared.fused_experts("changes", _MAPPED),
            shared.odd_layers("changes", _MAPPED),
        ),
        RuntimeRule(
            "rank_slow",
            "needs",
            "a rank above 128, for which it has no fast kernels",
            limits.rank_beyond(128),
            "expect it to be slow, or: adaptry resize REF --rank 128 -o NAME",
            "utils/punica.py · MAX_RANK_CUSTOM, BGMV_MAX_RANK",
        ),
    ),
    options=(RuntimeOption("max_active_adapters", "--max-active-adapters", default=1024),),
    warnings=(
        (
            "A folder of an adapter that was downloaded once is never looked at again:"
            " a new version needs a new name."
        ),
        (
            "The base is compared by architecture at most; where its config cannot be read,"
            " it is assumed to be right."
        ),
        "Merging adapters in a request takes no account of rsLoRA, and does not rescale DARE.",
    ),
    start=_start,
)
