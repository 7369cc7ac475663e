"""The codes of findings about an adapter by itself: severity, meaning and remedy.

Those about an adapter on a base are in `base_codes`. Findings take their severity and remedy from these
tables, and `docs/checks.md` is generated from them. Codes are stable: scripts depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.report import Finding, Severity

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class FindingCode:
    """One kind of finding. A remedy must be possible for someone who has only the adapter."""

    severity: Severity
    meaning: str
    remedy: str


ADAPTER_CODES: Mapping[str, FindingCode] = {
    "no_effect": FindingCode(
        "blocks",
        "A loader would use no tensor of the file: it loads without an error and changes nothing.",
        "correct its names: adaptry export REF --for peft --base BASE -o ./DIR; or save it again with PEFT's"
        " model.save_pretrained(DIR) and push that folder",
    ),
    "keys_dropped": FindingCode(
        "blocks",
        "Some tensors belong to the method but to no complete module; PEFT silently drops them.",
        "save it again with PEFT's model.save_pretrained(DIR); names begin with base_model.model."
        " exactly once",
    ),
    "keys_unknown": FindingCode(
        "warns",
        "Nothing in the config accounts for some tensors; loaders silently drop them.",
        "list their modules in modules_to_save if they were trained, or remove them from the file",
    ),
    "method_not_described": FindingCode(
        "warns",
        "The method is not supported by the checks yet; the adapter is stored and listed, but not checked.",
        "test it on its base before serving it; merging is refused",
    ),
    "rank_mismatch": FindingCode(
        "blocks",
        "The two factors of a module, or the factors and the config, disagree on the rank.",
        "set r and rank_pattern in adapter_config.json to the values of the training run, or save it again",
    ),
    "scale_zero": FindingCode(
        "blocks",
        "lora_alpha (in other methods alpha, scaling or a constrained OFT's eps) is 0 or almost 0, so the"
        " adapter changes nothing.",
        "set it (and alpha_pattern) to the value of the training run",
    ),
    "modules_scaled_to_zero": FindingCode(
        "warns",
        "lora_alpha (or alpha, scaling) is 0 or almost 0 for modules with low-rank updates, so these updates"
        " change nothing; the rest of the adapter is applied, and a DoRA's magnitudes.",
        "set it (and alpha_pattern) to the value of the training run",
    ),
    "pattern_conflict": FindingCode(
        "warns",
        "Two patterns give one module different values. PEFT sorts the keys when it saves, so a different"
        " one may apply now than in training.",
        "write rank_pattern and alpha_pattern so that each module matches one key",
    ),
    "pattern_unused": FindingCode(
        "warns",
        "A key of rank_pattern or alpha_pattern matches no module of the adapter. PEFT ignores it, so the"
        " modules for which it was meant have the rank or alpha of all others.",
        "write the names of modules as keys, or remove the key if it is not needed",
    ),
    "pattern_refused": FindingCode(
        "blocks",
        "A pattern in the config is invalid or too slow to match; the modules that it selects were not"
        " checked.",
        "write the module names as a list",
    ),
    "scale_unknown": FindingCode(
        "blocks",
        "rank_pattern or alpha_pattern has a pattern that is invalid or too slow to match, so ranks and"
        " scales"
        " are unknown.",
        "use plain module names as its keys",
    ),
    "integer_weights": FindingCode(
        "blocks",
        "Factors or saved weights are integers or complex numbers: PEFT silently casts them, without the"
        " imaginary parts, and the result is meaningless.",
        "save the adapter in a floating-point dtype, before any quantisation",
    ),
    "config_incomplete": FindingCode(
        "warns",
        "Fields are missing from the config: PEFT uses its defaults, and engines refuse to load the adapter.",
        "add them to adapter_config.json with the values of the training run",
    ),
    "config_unknown": FindingCode(
        "warns",
        "The config has fields that PEFT does not know and drops: a misspelt field has no effect.",
        "correct the spelling, or remove them from adapter_config.json",
    ),
    "config_mismatch": FindingCode(
        "blocks",
        "The tensors of a module and the numbers in the config contradict each other: PEFT refuses to load"
        " them, or interprets them as a different adapter.",
        "write the numbers of the training run into adapter_config.json, or save the adapter again",
    ),
    "config_refused": FindingCode(
        "blocks",
        "A field of the config has a value for which PEFT raises an error, computes NaN or builds a different"
        " adapter.",
        "write the value of the training run into adapter_config.json, or save the adapter again",
    ),
    "method_retired": FindingCode(
        "warns",
        "Current versions of PEFT do not load this method under this name.",
        "load it with the version of PEFT that wrote it, or convert it to a LoRA: adaptry convert REF --base"
        " BASE"
        " -o NAME",
    ),
    "library_unknown": FindingCode(
        "warns",
        "auto_mapping names a module outside the known model libraries, such as the training script. PEFT's"
        " AutoPeftModel refuses it (before PEFT 0.20 it imports it); nothing else reads this field.",
        "load it with PeftModel.from_pretrained on a model that you created, or set auto_mapping to null",
    ),
    "layers_need_a_list": FindingCode(
        "blocks",
        "layers_to_transform is set, but target_modules is a string; PEFT refuses to load this.",
        "write target_modules as a list, or remove layers_to_transform",
    ),
    "task_unknown": FindingCode(
        "blocks",
        "task_type is not one that PEFT knows; PEFT refuses to load this.",
        "set task_type to CAUSAL_LM, SEQ_CLS, SEQ_2_SEQ_LM, TOKEN_CLS,"
        " QUESTION_ANS or FEATURE_EXTRACTION, or null",
    ),
    "targets_without_tensors": FindingCode(
        "warns",
        "The config targets modules for which the file has no tensors: PEFT leaves them unchanged, with a"
        " warning.",
        "check that the adapter was saved completely, or remove these names from target_modules",
    ),
    "saved_modules_without_tensors": FindingCode(
        "warns",
        "The config lists modules_to_save, but the file has none of them: they would be untrained.",
        "save the adapter again from the trained model, or set modules_to_save to null",
    ),
    "newer_peft": FindingCode(
        "notes",
        "The adapter was written by a newer version of PEFT than these rules were checked against.",
        "nothing, unless another finding looks wrong; then upgrade adaptry",
    ),
    "depends_on_base": FindingCode(
        "warns",
        "The initialisation changed the base's weights, so the adapter is correct only on a base with the"
        " same"
        " change.",
        "convert it once: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST) in PEFT",
    ),
    "limited_use": FindingCode(
        "notes",
        "A feature of the adapter limits where it can be merged or served.",
        "check it for your engine: adaptry check REF --runtime ENGINE",
    ),
    "tensors_missing": FindingCode(
        "blocks",
        "The file lacks tensors that the method needs; PEFT replaces them by random values.",
        "save it again with PEFT's model.save_pretrained(DIR), and check that the file has them",
    ),
    "prompt_mismatch": FindingCode(
        "blocks",
        "The shape of the prompt differs from the config; PEFT refuses to load it.",
        "set num_virtual_tokens, token_dim and num_layers to the values of the training run, or save it"
        " again",
    ),
    "alpha_unknown": FindingCode(
        "warns",
        "The file does not contain alpha; loaders use the rank instead, so the strength is wrong if alpha was"
        " different.",
        "save it again with a newer version of the tool, which writes its metadata",
    ),
    "loader_refuses": FindingCode(
        "warns",
        "The tool whose format this is refuses to load the file.",
        "save it again with the newest version of that tool, or convert it to PEFT's layout:"
        " adaptry convert REF --base BASE -o NAME",
    ),
    "magnitudes_dropped": FindingCode(
        "warns",
        "A loader silently drops a DoRA's magnitudes, which makes it a different adapter.",
        "load it with the tool that trained it, and compare the outputs; one for a UNet of diffusers can be"
        " converted to PEFT's layout: adaptry convert REF --base BASE -o NAME",
    ),
    "base_unknown": FindingCode(
        "warns",
        "The base is not registered, so nothing could be checked against it.",
        "register it: adaptry base add FOLDER --name NAME; this also checks the adapter again",
    ),
    # The weights, inspected at every push and by checks of folders
    "weights_nan": FindingCode(
        "blocks",
        "Some weights are NaN, so every output would be NaN.",
        "go back to a checkpoint from before the training diverged",
    ),
    "weights_infinite": FindingCode(
        "blocks",
        "Some weights are infinite.",
        "go back to a checkpoint from before the training diverged; in float16, train with a smaller scale",
    ),
    "updates_overflow": FindingCode(
        "blocks",
        "Some updates are larger than float16's largest number, so the answers are NaN, infinite or noise.",
        "go back to a checkpoint from before the training diverged, or correct lora_alpha if it is not the"
        " training run's",
    ),
    "updates_large": FindingCode(
        "warns",
        "Some updates are many times larger than the weights of any model, as after a training that diverged;"
        " in float16, the answers may be NaN or infinite.",
        "compare its answers with the base's; if they are noise, go back to an earlier checkpoint, or correct"
        " lora_alpha",
    ),
    "untrained": FindingCode(
        "warns",
        "The adapter changes nothing: its updates are zero, or its multipliers one, as before training.",
        "push the trained adapter; under DeepSpeed or FSDP, gather the weights before saving",
    ),
    "modules_untrained": FindingCode(
        "warns",
        "Some modules change nothing: their updates are zero, or their multipliers one, as before training.",
        "check that these modules were trained, or remove them from target_modules",
    ),
    "updates_zero": FindingCode(
        "warns",
        "The updates of some modules are zero, as before training: only numbers that begin as the base's own,"
        " such as a DoRA's magnitudes, can change the model.",
        "check that it was trained; with the base's folder, adaptry check DIR --base BASE compares these"
        " numbers with its weights",
    ),
}


def build_finding(code: str, reason: str, modules: Iterable[str] = ()) -> Finding:
    """A finding with its code's severity and remedy, and the first 20 of `modules`."""
    entry = finding_code(code)
    return Finding(
        code=code,
        severity=entry.severity,
        reason=reason,
        remedy=entry.remedy,
        modules=tuple(modules)[:_SHOWN],
    )


def finding_code(code: str) -> FindingCode:
    """The entry of a code, in either table. Raises `KeyError`."""
    if code in ADAPTER_CODES:
        return ADAPTER_CODES[code]
    from adaptry.checks.base_codes import BASE_CODES  # most findings need no base

    return BASE_CODES[code]
