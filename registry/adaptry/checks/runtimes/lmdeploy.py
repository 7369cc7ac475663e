"""Rules of LMDeploy's PyTorch engine: the listed modules, with one scale and rank, in every layer."""

from __future__ import annotations

from adaptry.checks.runtimes import (
    base_conditions,
    config_conditions,
    field_conditions,
    intrinsic_conditions,
    name_conditions,
    repairs,
    scales,
    shared,
)
from adaptry.checks.runtimes.name_readers import one_prefix
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules, ServerNeeds

_SCALE = "lmdeploy/pytorch/adapter/adapter.py · get_ranks_and_scalings"
_LOAD = "lmdeploy/pytorch/adapter/adapter.py · load_lora_weights"
_ADD = "lmdeploy/pytorch/models/patch.py · add_adapters"


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("--adapters", *("NAME=DIR" for _ in range(needs.count)))


LMDEPLOY = RuntimeRules(
    name="lmdeploy",
    title="LMDeploy",
    source_version="1263d5c (0.18) and run in 0.18.0",
    tested_against=(
        "its reader (0.18.0) with its Llama model on the CPU; we multiply the factors, since its kernel needs"
        " a GPU"
    ),
    latest=(0, 18),
    preconditions=(shared.peft_files(_LOAD), shared.only_lora(_LOAD)),
    rules=(
        shared.scale(
            scales.of_config,
            "rsLoRA, `alpha_pattern` or `rank_pattern`: the scale is `lora_alpha / r` for all",
            _SCALE,
        ),
        RuntimeRule(
            "rank_pattern",
            "refuses",
            "a module whose rank is not `r`",
            config_conditions.other_ranks,
            repairs.ONE_RANK,
            "lmdeploy/pytorch/nn/linear/lora.py · weight_loader_A",
        ),
        shared.dora("refuses", f"{_LOAD}: an assertion", by_file=True),
        shared.trained_biases("refuses", f"{_LOAD}: an assertion", by_file=True),
        shared.saved_modules("refuses", f"{_LOAD}: an assertion"),
        shared.refuses_copied_embeddings(f"{_LOAD}: an assertion"),
        shared.refuses_embeddings(f"{_ADD}: an assertion"),
        shared.token_rows("refuses", f"{_LOAD}: an assertion"),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are not factors",
            name_conditions.no_factor(unpaired=False),
            repairs.SPELL,
            f"{_LOAD}: an assertion or KeyError",
        ),
        shared.inner_names("refuses", f"{_LOAD}: an assertion (observed in 0.18)"),
        shared.wrapped_names("refuses", f"{_LOAD}: KeyError (observed in 0.18)"),
        RuntimeRule(
            "factors_missing",
            "changes",
            "one factor without the other: the missing one keeps arbitrary memory contents",
            name_conditions.unpaired_factors(),
            repairs.SPELL,
            f"{_ADD}: torch.empty",
        ),
        RuntimeRule(
            "layers_uneven",
            "changes",
            "a module in some of the layers: in the others its factors keep arbitrary memory contents",
            base_conditions.uneven_layers,
            repairs.FILL_LAYERS,
            f"{_ADD}: torch.empty",
        ),
        shared.unusual_layers("refuses", f"{_LOAD}: KeyError"),
        shared.fused_experts("refuses", f"{_LOAD}: KeyError"),
        RuntimeRule(
            "names",
            "refuses",
            "module names that are not in the base's files",
            name_conditions.not_in_base(one_prefix),
            repairs.DISK_NAMES,
            f"{_LOAD}: KeyError",
        ),
        shared.variants("changes", _SCALE),
        shared.starts_from_base("changes", _SCALE),
        RuntimeRule(
            "config_incomplete",
            "refuses",
            "no `target_modules` in the config, or `r` or `lora_alpha` as null",
            field_conditions.fields_null(("target_modules",), ("r", "lora_alpha")),
            repairs.SAVE_AGAIN,
            f"{_ADD}; {_SCALE}",
        ),
        RuntimeRule(
            "config_refused",
            "refuses",
            "a `task_type` that PEFT does not know, or `layers_to_transform` with a pattern",
            intrinsic_conditions.blocked_by("task_unknown", "layers_need_a_list"),
            repairs.SAVE_AGAIN,
            f"{_ADD} reads the config with PEFT's PeftConfig",
        ),
        RuntimeRule(
            "targets_empty",
            "refuses",
            "an empty `target_modules`",
            config_conditions.declares_nothing,
            repairs.LIST_TARGETS,
            f"{_LOAD}: KeyError",
        ),
        RuntimeRule(
            "targets_empty_listed",
            "changes",
            "names in `target_modules` without tensors: their factors keep arbitrary memory contents",
            config_conditions.listed_without_factors,
            repairs.LIST_TARGETS,
            f"{_ADD}: torch.empty",
        ),
        RuntimeRule(
            "targets_odd",
            "refuses",
            "names in `target_modules` of modules that are not a matrix of a layer",
            config_conditions.listed_beyond_matrices,
            repairs.LIST_TARGETS,
            f"{_ADD}: an assertion",
        ),
        RuntimeRule(
            "method_misspelled",
            "refuses",
            "`peft_type` in lower case",
            field_conditions.method_misspelled,
            repairs.SAVE_AGAIN,
            f"{_ADD}: a KeyError of PEFT's",
        ),
        *shared.factor_shapes(
            "lmdeploy/pytorch/nn/linear/lora.py · weight_loader_A, weight_loader_B", rank=False
        ),
        RuntimeRule(
            "targets_text",
            "refuses",
            "`target_modules` as a string",
            field_conditions.target_text(),
            repairs.LIST_TARGETS,
            _SCALE,
        ),
        RuntimeRule(
            "targets_undeclared",
            "refuses",
            "modules that `target_modules` does not list",
            config_conditions.undeclared_targets,
            repairs.LIST_TARGETS,
            f"{_LOAD}: KeyError",
        ),
        RuntimeRule(
            "targets_by_path",
            "refuses",
            "`target_modules` with complete paths, several of which have the same ending",
            config_conditions.declared_by_path,
            repairs.LIST_TARGETS,
            f"{_ADD}: an assertion",
        ),
    ),
    warnings=("Adapters are given at start; none can be loaded later.", "The base is not compared."),
    start=_start,
)
