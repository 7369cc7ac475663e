"""What LMDeploy's PyTorch engine takes: the modules it is given, with one scale and rank, in every layer."""

from __future__ import annotations

from adaptry.checks.runtimes import (
    base_conditions,
    config_conditions,
    layer_conditions,
    names_read,
    repairs,
    scales,
    shared,
)
from adaptry.checks.runtimes import conditions as when
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
        "its own reader, of 0.18.0, over its own Llama on the CPU; the product of the factors is ours, since"
        " its kernel needs a GPU"
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
            "a module of another rank than `r`",
            config_conditions.other_ranks,
            repairs.ONE_RANK,
            "lmdeploy/pytorch/nn/linear/lora.py · weight_loader_A",
        ),
        shared.dora("refuses", f"{_LOAD}: an assertion"),
        shared.trained_biases("refuses", f"{_LOAD}: an assertion"),
        shared.saved_modules("refuses", f"{_LOAD}: an assertion"),
        RuntimeRule(
            "copied_embeddings",
            "refuses",
            "a copy of an embedding beside its update",
            when.copied,
            repairs.LEAVE_OUT,
            f"{_LOAD}: an assertion",
        ),
        shared.refuses_embeddings(f"{_ADD}: an assertion"),
        shared.token_rows("refuses", f"{_LOAD}: an assertion"),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are no factors",
            layer_conditions.no_factors,
            repairs.SPELL,
            f"{_LOAD}: an assertion or KeyError",
        ),
        shared.inner_names("refuses", f"{_LOAD}: an assertion (0.18, seen)"),
        shared.wrapped_names("refuses", f"{_LOAD}: KeyError (0.18, seen)"),
        RuntimeRule(
            "factors_missing",
            "changes",
            "one factor without the other: what is missing is whatever was in memory there",
            layer_conditions.lone_factors,
            repairs.SPELL,
            f"{_ADD}: torch.empty",
        ),
        RuntimeRule(
            "layers_uneven",
            "changes",
            "a module in some of the layers: in the others its factors are whatever was in memory there",
            base_conditions.uneven_layers,
            repairs.FILL_LAYERS,
            f"{_ADD}: torch.empty",
        ),
        shared.odd_layers("refuses", f"{_LOAD}: KeyError"),
        shared.fused_experts("refuses", f"{_LOAD}: KeyError"),
        RuntimeRule(
            "names",
            "refuses",
            "module names that the base does not have on disk",
            names_read.not_in_base(names_read.one_prefix),
            repairs.DISK_NAMES,
            f"{_LOAD}: KeyError",
        ),
        shared.variants("changes", _SCALE),
        shared.starts_from_base("changes", _SCALE),
        RuntimeRule(
            "config_incomplete",
            "refuses",
            "no `target_modules` in the config, or `r` or `lora_alpha` as null",
            when.fields_null(("target_modules",), ("r", "lora_alpha")),
            repairs.SAVE_AGAIN,
            f"{_ADD}; {_SCALE}",
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
            "targets_text",
            "refuses",
            "`target_modules` as a text",
            when.target_text(),
            repairs.LIST_TARGETS,
            _SCALE,
        ),
        RuntimeRule(
            "targets_undeclared",
            "refuses",
            "modules that `target_modules` does not name",
            config_conditions.undeclared_targets,
            repairs.LIST_TARGETS,
            f"{_LOAD}: KeyError",
        ),
        RuntimeRule(
            "targets_by_path",
            "refuses",
            "`target_modules` with whole paths, several of which end alike",
            config_conditions.declared_by_path,
            repairs.LIST_TARGETS,
            f"{_ADD}: an assertion",
        ),
    ),
    warnings=("Adapters are named when it starts; none is loaded later.", "Nothing compares the base."),
    start=_start,
)
