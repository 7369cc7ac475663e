"""What PEFT takes: all its methods. It leaves what it does not find, and never asks which base this is."""

from __future__ import annotations

from adaptry.adapters.key_layout import EXPERTS_EACH, EXPERTS_FUSED
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import repairs, shared
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules

_FLIP = "PEFT 0.19: ParamWrapper turned round (NVIDIA-NeMo/Automodel #3592)"
_STATE = "peft/utils/save_and_load.py · set_peft_model_state_dict"

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
            when.unclaimed,
            repairs.SPELL,
            f"{_STATE} returns unexpected keys, from_pretrained drops them",
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
