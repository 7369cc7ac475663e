"""Rules of LoRAX. It looks up the names that it knows and drops all others, at most with a warning."""

from __future__ import annotations

from adaptry.checks.runtimes import (
    base_conditions,
    name_conditions,
    option_conditions,
    repairs,
    scales,
    shared,
)
from adaptry.checks.runtimes.name_readers import one_prefix
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_MAPPED = "adapters/lora.py · map_weights_for_model"
_LAYERS = "adapters/lora.py · LoraWeights.load returns nothing for a layer type that one layer lacks"
_PINNED = "adapters/lora.py, with a hasattr guard; pyproject pins peft 0.4.0, which has no use_rslora"

_UNEVEN = RuntimeRule(
    "layers_uneven",
    "changes",
    "a module that lacks an update in some layers: it is dropped in all layers",
    base_conditions.uneven_layers,
    repairs.FILL_LAYERS,
    _LAYERS,
)


def rules_of_mapping(mapped: str, scale: RuntimeRule, *own: RuntimeRule) -> tuple[RuntimeRule, ...]:
    """Rules that follow from looking up the base's names, in LoRAX and TGI; `own` are rules of one engine."""
    return (
        shared.dora("changes", mapped),
        scale,
        shared.saved_modules("changes", mapped),
        *shared.copied_embeddings(mapped),
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
            "module names that are not in the base's files",
            name_conditions.not_in_base(one_prefix),
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
    tested_against="nothing, the source was only read: `lorax-server` is not on PyPI",
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
            shared.unusual_layers("changes", _MAPPED),
        ),
        RuntimeRule(
            "rank_slow",
            "needs",
            "a rank above 128, for which there are no fast kernels",
            option_conditions.rank_beyond(128),
            "expect it to be slow, or: adaptry resize REF --rank 128 -o NAME",
            "utils/punica.py · MAX_RANK_CUSTOM, BGMV_MAX_RANK",
        ),
    ),
    options=(RuntimeOption("max_active_adapters", "--max-active-adapters", default=1024),),
    warnings=(
        ("An adapter that was downloaded once is never checked for changes: a new version needs a new name."),
        ("The base is compared by architecture at most; if its config cannot be read, it is accepted."),
        "Merging adapters in a request ignores rsLoRA, and does not rescale DARE.",
    ),
    start=_start,
)
