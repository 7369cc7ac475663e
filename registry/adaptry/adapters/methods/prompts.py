"""Soft prompts: trained vectors before the embedded input; the base is unchanged (PEFT's prompt learning).

Prompt tuning (arXiv 2104.08691), P-tuning (2103.10385; its encoder runs once, when it is saved), multitask
prompt tuning (2303.02861) and context-aware prompt tuning (2410.17222) save one matrix, with a row for each
virtual token.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes

PREFIX = "base_model."
"""The prefix of the names of a prompt's `modules_to_save`: one level less than a tuner's."""

_HINT = (
    "its virtual tokens precede the input, and no weight can represent them: serve it unmerged, with PEFT's "
    "PeftModel.from_pretrained, or train a LoRA"
)


def size_without_modules(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """The width of a method whose tensors all belong to the whole model."""
    raise ValueError("a prompt does not adapt modules")


def submodules(config: AdapterConfig) -> int:
    """The number of stacks that get the prompt: 2 in an encoder-decoder; the rows of the second follow those
    of the first.
    """
    key = "num_transformer_submodules"
    return 1 if config.fields.get(key) is None else config.rank(key)


def _tokens(config: AdapterConfig, shapes: Shapes) -> int | None:
    rows = shapes.get("prompt", (0,))[0]
    return rows // submodules(config) or None


def _method(name: str, title: str, also: Mapping[str, str] | None = None) -> Method:
    shared = {"prompt_embeddings": "prompt", **(also or {})}
    return Method(
        name=name,
        title=title,
        key_patterns={},
        module_size=size_without_modules,
        shared=shared,
        required_shared=lambda config: tuple(shared.values()),
        prefix=PREFIX,
        unmergeable_hint=_HINT,
        virtual_tokens=_tokens,
    )


PROMPT_TUNING = _method("prompt_tuning", "prompt tuning")
P_TUNING = _method("p_tuning", "P-tuning")
MULTITASK_PROMPT_TUNING = _method(
    "multitask_prompt_tuning",
    "multitask prompt tuning",
    {"prefix_task_cols": "task_cols", "prefix_task_rows": "task_rows"},
)
CPT = _method("cpt", "CPT")
METHODS = (PROMPT_TUNING, P_TUNING, MULTITASK_PROMPT_TUNING, CPT)
