"""What PEFT takes: all its methods. It leaves what it does not find, and never asks which base this is.

On a known base the rules are those of `checks.binding`, which follows PEFT's own steps.
"""

from __future__ import annotations

from adaptry.adapters.key_layout import EXPERTS_EACH, EXPERTS_FUSED
from adaptry.checks.runtimes import bound_conditions, repairs, shared
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules

_FLIP = "PEFT 0.19: ParamWrapper turned round (NVIDIA-NeMo/Automodel #3592)"
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
            "tensors that belong to nothing in the config",
            bound_conditions.unclaimed_by_peft,
            repairs.SPELL,
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        shared.wrapped_names("changes", f"{_STATE} returns unexpected keys, from_pretrained drops them"),
        RuntimeRule(
            "names",
            "changes",
            "names that the model has for no module",
            bound_conditions.dropped("name"),
            repairs.LOADED_NAMES,
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
        ),
        RuntimeRule(
            "modules_not_targeted",
            "changes",
            "modules that `target_modules`, `exclude_modules` or `layers_to_transform` leave out",
            bound_conditions.not_targeted,
            repairs.LIST_TARGETS,
            _TARGETS,
        ),
        RuntimeRule(
            "targets_by_default",
            "needs",
            "no `target_modules`, and a base that is not known",
            bound_conditions.default_targets,
            repairs.LIST_TARGETS,
            _TARGETS,
        ),
        RuntimeRule(
            "weights_not_loaded",
            "changes",
            "tensors that have no place in the model with the adapter",
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
            "factors or weights of other shapes than the base's",
            bound_conditions.misfits("shape_mismatch", "extra_shape"),
            repairs.OTHER_BASE,
            f"{_STATE}: a RuntimeError of load_state_dict",
        ),
        RuntimeRule(
            "targets_none",
            "refuses",
            "no `target_modules`, for a model of which PEFT has no list of its own",
            bound_conditions.selects_nothing,
            repairs.LIST_TARGETS,
            "peft/tuners/tuners_utils.py · BaseTuner.inject_adapter",
        ),
        RuntimeRule(
            "saved_modules_listed",
            "refuses",
            "`modules_to_save` of which the file has none",
            bound_conditions.saved_without_tensors,
            repairs.NO_SAVED_LISTED,
            f"{_STATE}: a KeyError",
        ),
        RuntimeRule(
            "peft_refuses",
            "refuses",
            "a config that contradicts its file: part of a saved module, other token rows than are listed",
            bound_conditions.refused_otherwise,
            "save it again with PEFT's model.save_pretrained(DIR), and push that",
            "peft/peft_model.py · PeftModel.from_pretrained",
        ),
        RuntimeRule(
            "initialisation",
            "changes",
            "an initialisation that PEFT does not do again when it loads (CorDA, LoRA-GA, LoftQ,"
            " PiSSA by iteration)",
            when.initialised("corda", "lora_ga", "loftq", "pissa_niter"),
            repairs.START_LOST,
            "peft/tuners/lora/layer.py · update_layer",
        ),
        RuntimeRule(
            "experts_turned",
            "changes",
            "fused experts that PEFT before 0.19 wrote",
            when.written_before((0, 19), when.layout(EXPERTS_FUSED, "its experts are fused")),
            repairs.MERGE,
            _FLIP,
            since=(0, 19),
        ),
        RuntimeRule(
            "experts_turned",
            "changes",
            "fused experts that PEFT 0.19 or newer wrote",
            when.written_from((0, 19), when.layout(EXPERTS_FUSED, "its experts are fused")),
            repairs.MERGE,
            _FLIP,
            until=(0, 19),
        ),
        RuntimeRule(
            "experts_layout",
            "needs",
            "experts one by one",
            when.layout(EXPERTS_EACH, "its experts are modules of their own, as before transformers 5"),
            repairs.JOIN_EXPERTS,
            "transformers 5 holds a layer's experts as one parameter",
            since=(0, 19),
        ),
    ),
    warnings=(
        (
            "PeftModel.from_pretrained compares no base: another model of the same shapes takes the adapter"
            " without an error."
        ),
        "transformers 5.24's own load_adapter wants PEFT 0.22; load with PEFT itself.",
    ),
)
