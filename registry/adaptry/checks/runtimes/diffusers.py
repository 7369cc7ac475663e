"""Rules of diffusers: LoRA and LoKr for parts of a pipeline, in diffusers' own layout, kohya's, and others
that it converts.
"""

from __future__ import annotations

from adaptry.bases.model_classes import has_head
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import repairs
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch, RuntimeRule, RuntimeRules
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.tool_rules import RULES

_LOAD = "loaders/peft.py · load_lora_adapter"


def _shared_finding(code: str, formats: tuple[str, ...] = ("diffusers", "kohya")) -> Condition:
    """A finding with this code from the checks of diffusers' and kohya's files."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        format = subject.adapter.format
        if format.name not in formats:
            return None
        for finding in RULES[format.name](subject.adapter, format):
            if finding.code == code:
                return ConditionMatch(finding.reason, finding.modules)
        return None

    return found


def _mixed_alphas(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A part of the pipeline whose modules have different alphas in kohya's file."""
    if subject.adapter.format.name != "kohya":
        return None
    parts: dict[str, set[float]] = {}
    for module in subject.spec.modules:
        parts.setdefault("_".join(module.path.split("_")[:2]), set()).add(module.alpha)
    mixed = [part for part, alphas in parts.items() if len(alphas) > 1]
    return ConditionMatch(f"the modules of {', '.join(mixed)} have different alphas") if mixed else None


def _of_text(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """An adapter in PEFT's layout for a language task. Without a task, PEFT stores the model's class in
    `auto_mapping`; a class with a head (`LlamaForCausalLM`) is not a pipeline's text encoder.
    """
    if subject.adapter.format.name != "peft":
        return None
    task = subject.spec.task
    if task:
        return ConditionMatch(f"its task is {task}")
    mapping = subject.config.fields.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if isinstance(name, str) and has_head(name):
        return ConditionMatch(f"it was trained on a {name[:80]!a}")
    return None


DIFFUSERS_ENGINE = RuntimeRules(
    name="diffusers",
    title="diffusers",
    source_version="0.42.1",
    tested_against="diffusers itself, with adapters exported for it",
    latest=(0, 42),
    preconditions=(
        RuntimeRule(
            "files_of_another_tool",
            "refuses",
            "files of tools other than diffusers, kohya's and PEFT",
            when.other_files("diffusers", "kohya", "peft"),
            "save it again with pipeline.save_lora_weights(DIR)",
            _LOAD,
        ),
        RuntimeRule(
            "method_unknown",
            "refuses",
            "a method other than LoRA and LoKr",
            when.method_beyond("lora", "lokr"),
            repairs.AS_LORA,
            _LOAD,
        ),
        RuntimeRule(
            "not_a_pipeline",
            "refuses",
            "an adapter of a language model",
            _of_text,
            "serve it with PEFT or an engine for text",
            _LOAD,
        ),
    ),
    rules=(
        RuntimeRule(
            "loader_refuses",
            "refuses",
            "duplicate alphas, or tensors that do not belong to a LoRA",
            _shared_finding("loader_refuses"),
            repairs.WRITE_ANEW,
            _LOAD,
        ),
        RuntimeRule(
            "alpha_unknown",
            "changes",
            "no alpha in the file: the rank is used instead",
            _shared_finding("alpha_unknown"),
            "save it again with a newer version of the tool that trained it",
            _LOAD,
        ),
        RuntimeRule(
            "alphas_mixed",
            "changes",
            "different alphas within a part, in kohya's file: attention modules get the most frequent",
            _mixed_alphas,
            repairs.ONE_ALPHA,
            "utils/peft_utils.py · get_peft_kwargs: its alpha_pattern matches nothing"
            " (observed with such a file)",
        ),
        RuntimeRule(
            "magnitudes_dropped",
            "changes",
            "DoRA magnitudes of text encoders, or kohya's",
            _shared_finding("magnitudes_dropped"),
            "load it with the tool that trained it",
            _LOAD,
        ),
    ),
    warnings=(
        "Tensors for parts that the pipeline lacks are dropped with a warning.",
        "Hot swapping does not work for text encoders or LoKr.",
    ),
)
