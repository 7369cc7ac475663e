"""Rules of Ollama: one adapter per model, which its converter writes as GGUF."""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import field_conditions, repairs, scales, shared
from adaptry.checks.runtimes.rule import (
    CheckSubject,
    Condition,
    ConditionMatch,
    RuntimeRule,
    RuntimeRules,
    ServerNeeds,
)
from adaptry.checks.runtimes.runtime import Runtime

_CONVERT = "convert/convert.go · ConvertAdapter"
_NAMES = f"{_CONVERT}: it knows only the names of attention and MLP"
_CONFIG = "convert/convert_adapter reads lora_alpha, and no other field"
_MODULES = frozenset(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
_FAMILIES = frozenset(["llama", "mistral", "gemma2"])


def _other_family(families: frozenset[str]) -> Condition:
    """A base of an unsupported architecture. Needs the base."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        family = subject.base.facts.get("model_type") if subject.base else None
        return ConditionMatch(f"its base is a {family}") if family and family not in families else None

    return found


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("FROM base", "ADAPTER DIR")


OLLAMA = RuntimeRules(
    name="ollama",
    title="Ollama",
    source_version="fb30760 (0.33.0-rc2)",
    tested_against="nothing, the source was only read",
    latest=(0, 33),
    preconditions=(shared.peft_files(_CONVERT), shared.only_lora(_CONVERT)),
    rules=(
        RuntimeRule(
            "base_family",
            "refuses",
            "a base other than llama, mistral or gemma2",
            _other_family(_FAMILIES),
            repairs.MERGE,
            _CONVERT,
        ),
        RuntimeRule(
            "alpha_fraction",
            "refuses",
            "a `lora_alpha` that is not a whole number",
            field_conditions.fraction_of_alpha,
            repairs.FOLD_UNIFORM,
            "convert: lora_alpha is a uint32",
        ),
        shared.scale(
            scales.of_tensor_or_one,
            "rsLoRA, `alpha_pattern` or an alpha of 0: the scale is `lora_alpha` / the tensors' rank, or 1",
            "llama-adapter.h · get_scale, with one alpha in the file",
            repairs.FOLD_UNIFORM,
        ),
        shared.dora("refuses", _NAMES),
        shared.saved_modules("refuses", _NAMES),
        shared.token_rows("refuses", _NAMES),
        shared.trained_biases("refuses", _NAMES),
        shared.unmatched("refuses", _NAMES),
        RuntimeRule(
            "targets_unknown",
            "refuses",
            "modules beyond attention and MLP",
            when.targets_beyond(_MODULES),
            repairs.MERGE,
            _NAMES,
        ),
        shared.variants("changes", _CONFIG),
        shared.starts_from_base("changes", _CONFIG),
    ),
    warnings=("A model has one adapter. On a wrong base it gives erratic answers, without a warning.",),
    start=_start,
)
