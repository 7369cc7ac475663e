"""Whether a prompt or prefix has the shape that its config declares, and the width of the base's embeddings
or of its layers' keys and values.

A prompt changes no module, so only its one matrix can be checked. PEFT silently loads one that belongs to
another base, and fails, or answers nonsense, when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods import prefixes, prompts
from adaptry.checks.codes import build_finding
from adaptry.core.report import Finding

_PROMPTS = frozenset(method.name for method in prompts.METHODS)
_PREFIXES = frozenset(method.name for method in prefixes.METHODS)
# In these models, layers have keys and values of different widths; PEFT uses the largest.
_UNEVEN = ("gemma4",)


def check_prompt(adapter: Adapter, base: BaseRecord | None) -> Iterator[Finding]:
    """Findings about a prompt's shape, compared with the config and, with `base`, with its width or number of
    layers. Empty for other methods.
    """
    if adapter.spec.method not in _PROMPTS | _PREFIXES:
        return
    yield from _by_config(adapter)
    if base is not None:
        yield from _by_base(adapter, base)


def _by_config(adapter: Adapter) -> Iterator[Finding]:
    # CPT takes the number from its prompt; null is reported with the other values of wrong types.
    if "num_virtual_tokens" not in adapter.config.fields and adapter.spec.method != prompts.CPT.name:
        yield build_finding("config_refused", "num_virtual_tokens is not set")
    for role, expected in _wanted(adapter.spec.method, adapter.config).items():
        tensor = adapter.spec.shared.get(role)
        if tensor is None:  # reported as `tensors_missing`
            continue
        shape = adapter.tensors[tensor].shape
        if len(shape) != len(expected) or any(
            want not in (None, found) for want, found in zip(expected, shape, strict=True)
        ):
            expected_text = " by ".join("any" if want is None else f"{want:,}" for want in expected)
            yield build_finding(
                "prompt_mismatch", f"{tensor} is {list(shape)}, but the config implies {expected_text}"
            )


def _by_base(adapter: Adapter, base: BaseRecord) -> Iterator[Finding]:
    tensor = adapter.spec.shared.get("prompt")
    if tensor is None:
        return
    width, facts = adapter.tensors[tensor].shape[-1], base.facts.get("text_config") or base.facts
    if adapter.spec.method in _PROMPTS:
        hidden = facts.get("hidden_size")
        if hidden not in (None, width):
            yield build_finding(
                "prompt_width",
                f"its virtual tokens are {width:,} wide, but the base's embeddings are {hidden:,}",
            )
    elif (expected := _of_all_layers(facts)) not in (None, width):
        yield build_finding(
            "prompt_width",
            f"it has {width:,} numbers for each virtual token, but the base needs {expected:,}: a key and a"
            f" value of {facts['kv_heads']} heads of {facts['head_dim']} in each of {facts['layers']} layers",
        )


def _of_all_layers(facts: Mapping[str, Any]) -> int | None:
    """The number of elements in the keys and values of one token, if the base's facts determine it. (`Any`:
    JSON.)
    """
    counts = [facts.get(fact) for fact in ("layers", "kv_heads", "head_dim")]
    if not all(isinstance(count, int) for count in counts) or facts["model_type"].startswith(_UNEVEN):
        return None
    return 2 * int(facts["layers"]) * int(facts["kv_heads"]) * int(facts["head_dim"])


def _wanted(method: str, config: AdapterConfig) -> dict[str, tuple[int | None, ...]]:
    """The shape that PEFT gives each tensor according to the config; None for a side whose field is unset."""
    tokens, width = _number(config, "num_virtual_tokens"), _number(config, "token_dim")
    if method in _PREFIXES:
        layers = _number(config, "num_layers")
        return {"prompt": (tokens, 2 * layers * width if layers and width else None)}
    rows = tokens * prompts.submodules(config) if tokens else None
    shapes: dict[str, tuple[int | None, ...]] = {"prompt": (rows, width)}
    if method == "multitask_prompt_tuning":
        tasks, ranks = config.rank("num_tasks", 1), config.rank("num_ranks", 1)
        shapes |= {"task_cols": (tasks, rows, ranks), "task_rows": (tasks, ranks, width)}
    return shapes


def _number(config: AdapterConfig, key: str) -> int | None:
    return config.rank(key) if config.fields.get(key) is not None else None
