"""Rules of PEFT: all its methods. It drops tensors that it does not find, and never compares the base.

On a known base the rules are those of `checks.binding`, which follows PEFT's steps.
"""

from __future__ import annotations

from adaptry.adapters.key_layout import EXPERTS_EACH, EXPERTS_FUSED
from adaptry.checks.runtimes import bound_conditions, field_conditions, intrinsic_conditions, repairs, shared
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules

_FLIP = "PEFT 0.19: ParamWrapper transposed (NVIDIA-NeMo/Automodel #3592)"
_STATE = "peft/utils/save_and_load.py · set_peft_model_state_dict"
_TARGETS = "peft/tuners/tuners_utils.py · check_target_module_exists"

PEFT_ENGINE = RuntimeRules(
    name="peft",
    title="PEFT",
    source_version="0.21.2",
    tested_against="PEFT itself",
    latest=(0, 21),
    preconditions=(
        shared.peft_files("peft/peft_model.py · PeftModel.from_pretrained"),
        RuntimeRule(
            "method_unknown",
            "refuses",
            "a method that PEFT does not know",
            when.unknown_method,
            "load it with the tool that wrote it",
            "peft/mapping.py",
        ),
    ),
    rules=(
        RuntimeRule(
            "tensors_unmatched",
            "changes",
            "tensors that nothing in the config accounts for",
            bound_conditions.unclaimed_by_peft,
            repairs.SPELL,
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        shared.wrapped_names("changes", f"{_STATE} returns unexpected keys, from_pretrained drops them"),
        RuntimeRule(
            "names",
            "changes",
            "names of modules that the model does not have",
            bound_conditions.dropped("name"),
            repairs.LOADED_NAMES,
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        RuntimeRule(
            "modules_not_targeted",
            "changes",
            "modules that `target_modules`, `exclude_modules` or `layers_to_transform` exclude",
            bound_conditions.not_targeted,
            repairs.LIST_TARGETS,
            _TARGETS,
        ),
        RuntimeRule(
            "targets_by_default",
            "needs",
            "no `target_modules`, and an unknown base",
            bound_conditions.default_targets,
            repairs.LIST_TARGETS,
            _TARGETS,
        ),
        RuntimeRule(
            "weights_not_loaded",
            "changes",
            "tensors without a parameter in the model with the adapter",
            bound_conditions.dropped("no_place"),
            "save it again with PEFT's model.save_pretrained(DIR), and push that",
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        RuntimeRule(
            "modules_missing",
            "changes",
            "modules or whole weights that the base does not have, or has twice",
            bound_conditions.misfits("module_missing", "module_ambiguous", "extra_missing"),
            repairs.OTHER_BASE,
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        RuntimeRule(
            "shapes",
            "refuses",
            "factors or weights whose shapes do not fit the base, or token rows beyond its vocabulary",
            bound_conditions.misfits("shape_mismatch", "extra_shape", "token_outside_vocabulary"),
            repairs.OTHER_BASE,
            f"{_STATE}: a RuntimeError of load_state_dict",
        ),
        RuntimeRule(
            "rank_mismatch",
            "refuses",
            "factors whose ranks differ from each other or from the config",
            intrinsic_conditions.blocked_by("rank_mismatch"),
            "save it again with PEFT's model.save_pretrained(DIR), and push that",
            f"{_STATE}: a RuntimeError of load_state_dict",
        ),
        RuntimeRule(
            "config_refused",
            "refuses",
            "values of the config that PEFT refuses",
            intrinsic_conditions.blocked_by("config_refused", "task_unknown", "layers_need_a_list"),
            repairs.SAVE_AGAIN,
            "peft/config.py · PeftConfigMixin.from_pretrained; peft/tuners",
        ),
        RuntimeRule(
            "tensors_missing",
            "changes",
            "missing tensors that the config declares: PEFT uses their initial values",
            intrinsic_conditions.blocked_by("tensors_missing"),
            "save it again with PEFT's model.save_pretrained(DIR), and push that",
            f"{_STATE} returns missing keys",
        ),
        RuntimeRule(
            "tensors_undeclared",
            "changes",
            "tensors of a module that the config does not declare: PEFT drops them",
            intrinsic_conditions.undeclared,
            "save it again with PEFT's model.save_pretrained(DIR), and push that",
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        RuntimeRule(
            "targets_unfit",
            "refuses",
            "`target_modules` that also selects norms, blocks or whole attentions",
            bound_conditions.targets_unfit,
            repairs.LIST_TARGETS,
            "peft/tuners/lora/model.py · _create_new_module",
        ),
        RuntimeRule(
            "targets_nowhere",
            "refuses",
            "`target_modules` that selects no module of the base",
            bound_conditions.targets_nowhere,
            repairs.LIST_TARGETS,
            "peft/tuners/tuners_utils.py · BaseTuner.inject_adapter",
        ),
        RuntimeRule(
            "targets_none",
            "refuses",
            "no `target_modules`, for a model without defaults in PEFT",
            bound_conditions.selects_nothing,
            repairs.LIST_TARGETS,
            "peft/tuners/tuners_utils.py · BaseTuner.inject_adapter",
        ),
        RuntimeRule(
            "saved_modules_listed",
            "refuses",
            "`modules_to_save` that the file lacks",
            bound_conditions.saved_without_tensors,
            repairs.NO_SAVED_LISTED,
            f"{_STATE}: a KeyError",
        ),
        RuntimeRule(
            "peft_refuses",
            "refuses",
            "a config that contradicts its file: an incomplete saved module, or unlisted token rows",
            bound_conditions.refused_otherwise,
            "save it again with PEFT's model.save_pretrained(DIR), and push that",
            "peft/peft_model.py · PeftModel.from_pretrained",
        ),
        RuntimeRule(
            "initialisation",
            "changes",
            "an initialisation that PEFT does not repeat at load (CorDA, LoRA-GA, LoftQ, PiSSA by iteration)",
            field_conditions.initialised("corda", "lora_ga", "loftq", "pissa_niter"),
            repairs.START_LOST,
            "peft/tuners/lora/layer.py · update_layer",
        ),
        RuntimeRule(
            "experts_turned",
            "changes",
            "fused experts, written by PEFT before 0.19",
            when.written_before((0, 19), when.layout(EXPERTS_FUSED, "its experts are fused")),
            repairs.MERGE,
            _FLIP,
            since=(0, 19),
        ),
        RuntimeRule(
            "experts_turned",
            "changes",
            "fused experts, written by PEFT 0.19 or newer",
            when.written_from((0, 19), when.layout(EXPERTS_FUSED, "its experts are fused")),
            repairs.MERGE,
            _FLIP,
            until=(0, 19),
        ),
        RuntimeRule(
            "experts_layout",
            "needs",
            "separate experts",
            when.layout(EXPERTS_EACH, "its experts are separate modules, as before transformers 5"),
            repairs.JOIN_EXPERTS,
            "transformers 5 holds the experts of a layer in one parameter",
            since=(0, 19),
        ),
    ),
    warnings=(
        (
            "PeftModel.from_pretrained does not compare the base: another model with the same shapes accepts"
            " the"
            " adapter without an error."
        ),
        "transformers 5.24's load_adapter needs PEFT 0.22; load with PEFT itself.",
    ),
)
