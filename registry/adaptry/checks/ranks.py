"""Checks of an adapter's ranks and scales: whether its tensors agree with its config."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.lora_config import pattern_problems, scale_of
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import fold_layer_numbers, shorten_names
from adaptry.core.report import Finding

_OWN_RANKS = frozenset(["adalora", "adamss", "deft", "lokr"])
"""Methods whose modules may have ranks other than the config's r by design."""
_WITH_RANK_PATTERN = frozenset(["delora", "loha"])
"""Methods other than LoRA that apply `rank_pattern`. HiRA has the field, but PEFT 0.21 ignores it."""


def check_ranks_and_scales(adapter: Adapter) -> Iterator[Finding]:
    """The findings about ranks and scales, without a base."""
    spec = adapter.spec
    if spec.method == "lora":
        yield from _ranks(adapter)
        yield from _scales(adapter.config, spec)
    elif spec.method not in _OWN_RANKS:
        yield from _declared_ranks(adapter.config, spec)


def _ranks(adapter: Adapter) -> Iterator[Finding]:
    config = adapter.config
    # BD-LoRA stores one factor in blocks, so its width is not the rank.
    if not {"bdlora", "pattern_refused"}.isdisjoint(adapter.spec.traits):
        return
    wrong: dict[str, list[str]] = {}
    for module in adapter.spec.modules:
        up = adapter.tensors[module.tensors.get("B") or module.tensors["embedding_B"]].shape
        _, _, declared = scale_of(config, module.name)
        is_as_declared = (
            module.rank % declared == 0 if module.kind == "parameter" else module.rank == declared
        )
        if up[1] != module.rank:
            reason = f"A has rank {module.rank} and B has rank {up[1]}"
        elif not is_as_declared:
            reason = f"the factors have rank {module.rank}, but the config declares {declared}"
        else:
            continue
        wrong.setdefault(reason, []).append(module.path)
    for reason, paths in wrong.items():
        yield build_finding(
            "rank_mismatch", f"{reason}, in {shorten_names(fold_layer_numbers(paths))}", paths
        )


def _declared_ranks(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """For methods with a single `r`: the scale depends on it, so a different value gives a different
    adapter.
    """
    if not config.fields.get("r"):  # OFT's is 0 if it has a block size
        return
    wrong: dict[str, list[str]] = {}
    for module in spec.modules:
        declared = config.rank()
        if spec.method in _WITH_RANK_PATTERN:
            declared = config.value_for("rank_pattern", module.path, declared)
        if module.rank and module.rank != declared:
            reason = f"the tensors have rank {module.rank}, but the config declares {declared}"
            wrong.setdefault(reason, []).append(module.path)
    for reason, paths in wrong.items():
        yield build_finding(
            "rank_mismatch", f"{reason}, in {shorten_names(fold_layer_numbers(paths))}", paths
        )


def _scales(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    if refused := pattern_problems(config):
        yield build_finding("scale_unknown", shorten_names(refused, 2))
        return
    silent = [module.path for module in spec.modules if module.scale == 0]
    if silent:
        yield build_finding(
            "scale_zero", f"lora_alpha is 0 for {shorten_names(fold_layer_numbers(silent))}", silent
        )
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.pattern_values(key)
        disputed = {
            module.path: found
            for module in spec.modules
            if patterns and (found := config.patterns.disputed(key, module.name))
        }
        for path, found in list(disputed.items())[:1]:
            values = sorted(str(patterns[pattern]) for pattern in found)
            yield build_finding(
                "pattern_conflict", f"{key} gives {path} the values {' and '.join(values)}", list(disputed)
            )
