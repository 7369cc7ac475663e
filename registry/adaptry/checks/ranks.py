"""Checks of an adapter's ranks and scales: whether its tensors agree with its config."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.lora_config import pattern_problems, scale_of
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.core.report import Finding

_OWN_RANKS = frozenset(["adalora", "adamss", "deft", "lokr"])
"""Methods whose modules may have ranks other than the config's r by design."""
_DECOMPOSED = frozenset(["olora", "pissa"])
"""The traits of LoRAs whose factors are parts of a decomposition of the weight, whose rank is at most the
weight's smaller side.
"""
_WITH_RANK_PATTERN = frozenset(["delora", "loha"])
"""Methods other than LoRA that apply `rank_pattern`. HiRA has the field, but PEFT 0.21 ignores it."""
_SCALES = {
    "fourierft": "scaling", "gralora": "alpha", "lily": "scaling", "loha": "alpha", "lokr": "alpha",
    "oft": "eps", "peanut": "scaling", "randlora": "randlora_alpha", "shadow": "shadow_alpha",
    "supertuning": "lora_alpha", "waveft": "scaling",
}  # fmt: skip
"""Methods other than LoRA, and the field by which they multiply every update: for OFT, the limit of its
constrained form; for Super-Tuning, only the factors beside its sparse values.
"""
_MIN_SCALE = 1e-12
"""Factors of usual size times a smaller scale are lost when they are added to a weight."""
DEFAULT_RANKS = {
    "adamss": 100, "deft": 8, "delora": 8, "glora": 8, "gralora": 32, "hira": 32, "hra": 8, "lily": 32,
    "loha": 8, "lokr": 8, "miss": 64, "peanut": 32, "poly": 8, "psoft": 32, "pvera": 256, "randlora": 32,
    "shadow": 8, "shira": 32, "tinylora": 2, "unilora": 4, "vblora": 4, "vera": 256,
}  # fmt: skip
"""PEFT's `r` where a config has none, for methods other than LoRA and AdaLoRA."""


def check_ranks_and_scales(adapter: Adapter, as_parameters: Collection[str] = ()) -> Iterator[Finding]:
    """The findings about ranks and scales, without a base. The config is not compared with the ranks of the
    modules at the paths in `as_parameters`.
    """
    spec = adapter.spec
    if spec.method == "lora":
        yield from _ranks(adapter, as_parameters)
        yield from _scales(adapter.config, spec)
        if not as_parameters:
            yield from _unused_patterns(adapter.config, spec)
    elif spec.method not in _OWN_RANKS:
        yield from _declared_ranks(adapter.config, spec)
    yield from _single_scale(adapter)


def _single_scale(adapter: Adapter) -> Iterator[Finding]:
    """A finding about a scale of zero, for methods that multiply all updates by one field of the config."""
    config, field = adapter.config, _SCALES.get(adapter.spec.method)
    if field == "alpha" and config.fields.get("alpha_pattern"):
        yield from _modules_scaled_to_zero(adapter.spec, "alpha")
        return
    if field is None or config.fields.get(field) is None:
        return
    if field == "eps" and not config.flag("coft"):
        return
    value = config.number(field, 1)
    if abs(value) < _MIN_SCALE:
        has_others = bool(adapter.spec.extras) or adapter.spec.method == "supertuning"
        code = "modules_scaled_to_zero" if has_others else "scale_zero"
        yield build_finding(code, f"{field} is {value:g}")


def _modules_scaled_to_zero(spec: Spec, field: str) -> Iterator[Finding]:
    """Modules whose scale follows from `field` or a pattern for it."""
    silent = [each for each in spec.modules if abs(each.scale) < _MIN_SCALE]
    if silent:
        paths = [each.path for each in silent]
        has_magnitudes = any("magnitude" in each.tensors for each in silent)  # DoRA applies them anyway
        has_others = len(silent) < len(spec.modules) or bool(spec.extras) or has_magnitudes
        yield build_finding(
            "modules_scaled_to_zero" if has_others else "scale_zero",
            f"{field} is {silent[0].alpha:g} for {shorten_names(fold_layer_numbers(paths))}",
            paths,
        )


def _is_grouped(adapter: Adapter, module: ModuleSpec, width: int) -> bool:
    """Whether B, which has this width, belongs to a grouped convolution with the rank of A."""
    from adaptry.adapters.methods.grouped_convolution import count_groups  # few adapters are grouped

    return width * count_groups(module, adapter.tensors) == module.rank


def _ranks(adapter: Adapter, as_parameters: Collection[str]) -> Iterator[Finding]:
    config = adapter.config
    # BD-LoRA stores one factor in blocks, so its width is not the rank.
    if not {"bdlora", "pattern_refused"}.isdisjoint(adapter.spec.traits):
        return
    wrong: dict[str, list[str]] = {}
    for module in adapter.spec.modules:
        up = adapter.tensors[module.tensors.get("B") or module.tensors["embedding_B"]].shape
        _, _, declared = scale_of(config, module.name)
        if not _DECOMPOSED.isdisjoint(adapter.spec.traits):
            declared = min(declared, *(side for side in (module.fan_in, module.fan_out) if side))
        is_as_declared = (
            module.rank % declared == 0 if module.kind == "parameter" else module.rank == declared
        )
        if up[1] != module.rank and not _is_grouped(adapter, module, up[1]):
            reason = f"A has rank {module.rank} and B has rank {up[1]}"
        elif not is_as_declared and module.path not in as_parameters:
            reason = f"the factors have rank {module.rank}, but the config declares {declared}"
        else:
            continue
        wrong.setdefault(reason, []).append(module.path)
    for reason, paths in wrong.items():
        yield build_finding(
            "rank_mismatch", f"{reason}, in {shorten_names(fold_layer_numbers(paths))}", paths
        )


def _declared_ranks(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """Findings for methods with a single `r`: the scale depends on it, so a different value gives a different
    adapter.
    """
    of_config = config.fields.get("r", DEFAULT_RANKS.get(spec.method))
    if not of_config:  # OFT's is 0 if it has a block size
        return
    wrong: dict[str, list[str]] = {}
    for module in spec.modules:
        declared = config.rank(default=of_config)
        if spec.method in _WITH_RANK_PATTERN:
            declared = config.rank_for(module.path, declared)
        if spec.method == "tinylora":  # PEFT limits the rank to the weight's smaller side
            declared = min(declared, module.fan_in, module.fan_out)
        if module.rank and module.rank != declared:
            reason = f"the tensors have rank {module.rank}, but the config declares {declared}"
            wrong.setdefault(reason, []).append(module.path)
    for reason, paths in wrong.items():
        yield build_finding(
            "rank_mismatch", f"{reason}, in {shorten_names(fold_layer_numbers(paths))}", paths
        )


def _unused_patterns(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """PEFT matches the keys with names in the model, which may be newer than those in the file. Experts are
    left out, since PEFT adapts them under other names.
    """
    names = {module.name for module in spec.modules}
    has_experts = any(module.kind == "parameter" or ".experts." in module.name for module in spec.modules)
    if has_experts or "pattern_refused" in spec.traits:
        return
    for key in ("rank_pattern", "alpha_pattern"):
        unused = config.patterns.unused(key, names) if config.pattern_values(key) else ()
        if unused:
            from adaptry.checks.binding.expert_factors import transformers5_path  # few configs need it

            unused = config.patterns.unused(key, {*names, *map(transformers5_path, names)})
        if unused:
            yield build_finding("pattern_unused", f"keys of {key} match no module: {shorten_names(unused)}")


def _scales(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    if refused := pattern_problems(config):
        yield build_finding("scale_unknown", shorten_names(refused, 2))
        return
    yield from _modules_scaled_to_zero(spec, "lora_alpha")
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.pattern_values(key)
        conflicting_patterns = {
            module.path: found
            for module in spec.modules
            if patterns and (found := config.patterns.conflicting_patterns(key, module.name))
        }
        for path, found in list(conflicting_patterns.items())[:1]:
            values = sorted(str(patterns[pattern]) for pattern in found)
            yield build_finding(
                "pattern_conflict",
                f"{key} gives {path} the values {' and '.join(values)}",
                list(conflicting_patterns),
            )
