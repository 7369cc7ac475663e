"""Checks of an adapter by itself, from its config and header.

Most of them find adapters that load without an error but then behave differently than in training.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.config_schema import LORA_FIELDS
from adaptry.adapters.header import FLOATS
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.adapters.pattern_process import WHOLE
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names, verb_form
from adaptry.checks.ranks import check_ranks_and_scales
from adaptry.checks.refused_configs import refused_fields
from adaptry.core.report import Finding

_CHANGES_BASE = {
    "pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "lora_ga": "LoRA-GA", "loftq": "LoftQ",
    "kasa": "KaSA",
}  # fmt: skip
_LIMITS = {
    "alora": "aLoRA acts only after its invocation tokens, so it cannot be merged",
    "arrow": "Arrow chooses between adapters for each token, so it cannot be merged",
    "dora": "DoRA scales the base's weights by their norm, so it is not a plain LoRA; some engines refuse it",
    "bdlora": "BD-LoRA stores its factors in blocks, which engines refuse",
    "members": (
        "its members are separate adapters, which the config names by their paths: push them too, and enter"
        " their new paths before loading"
    ),
    "qalora": "QA-LoRA belongs to one quantised base",
}


_ROLE_NAMES = {
    "magnitude": "magnitudes (use_dora)",
    "B_bias": "biases of lora_B (lora_bias)",
    "diag": "diagonals (kasa_config)",
}
_FROM_TRAINING = ("monteclora.", "velora_")
"""Roles of samplers and projections, which PEFT needs in training only."""
_TASKS = frozenset(
    ["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]
)
_NEWEST_PEFT = (0, 21)
_GATHER = (
    "save it again with its weights gathered: model.save_pretrained(DIR,"
    " state_dict=accelerator.get_state_dict(model)), or set stage3_gather_16bit_weights_on_model_save for"
    " DeepSpeed"
)


def check_intrinsic(adapter: Adapter, as_parameters: Collection[str] = ()) -> Iterator[Finding]:
    """The findings that do not need a base. `as_parameters` are the paths of modules that PEFT adapts as
    parameters on the adapter's base, so that their ranks are checked there.
    """
    spec = adapter.spec
    yield from _config(adapter.config, spec)
    if "not_described" in spec.traits:
        count = len(adapter.tensors)
        reason = (
            f"the checks do not support {spec.method}; its {format_count(count, 'tensor')} "
            f"{verb_form(count, 'was', 'were')} only counted"
        )
        yield build_finding("method_not_described", reason)
        if _is_of_known_peft(spec):
            kind = str(adapter.config.fields["peft_type"])[:40]
            written = f"PEFT {spec.peft_version} wrote it"
            yield build_finding("config_refused", f"PEFT has no peft_type {kind!a}, but {written}")
        return
    yield from _keys(adapter)
    yield from _missing(adapter)
    has_tensors = not _is_empty(adapter)
    if has_tensors:
        yield from _integers(adapter)
        if METHODS[spec.method].names_modules(adapter.config):
            yield from _without_tensors(adapter.config, spec)
            yield from _adapted_and_saved(adapter.config, spec)
        yield from _traits(adapter.config, spec)
    yield from refused_fields(adapter.config)
    if has_tensors:
        yield from check_ranks_and_scales(adapter, as_parameters)


def _config(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """Findings about missing and unknown fields, and about values whose meaning differs from that in
    training.
    """
    needed = ("r", "lora_alpha") if spec.method == "lora" else ()
    missing = [key for key in needed if config.fields.get(key) is None]
    if spec.method == "lora" and not (
        config.fields.get("target_modules") or config.fields.get("target_parameters")
    ):
        missing.append("target_modules")
    if missing:
        yield build_finding("config_incomplete", f"adapter_config.json has no {', '.join(missing)}")
    unknown = sorted(set(config.fields) - LORA_FIELDS) if spec.method == "lora" else []
    if unknown:
        yield build_finding(
            "config_unknown", f"adapter_config.json has {shorten_names(_printable(unknown))}", unknown
        )
    if spec.task is not None and spec.task not in _TASKS:
        yield build_finding("task_unknown", f"task_type is {spec.task[:40]!a}")
    if config.unknown_library is not None:
        yield build_finding(
            "library_unknown", f"the class of its model is from {config.unknown_library[:80]!a}"
        )
    if _peft_version(spec) > _NEWEST_PEFT:
        newest = ".".join(map(str, _NEWEST_PEFT))
        yield build_finding(
            "newer_peft", f"written by PEFT {spec.peft_version}; these rules are for {newest}"
        )


def _peft_version(spec: Spec) -> tuple[int, int]:
    """The version of PEFT that wrote the adapter; (0, 0) if it is unknown."""
    version = re.match(r"(\d+)\.(\d+)", spec.peft_version or "")
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _is_of_known_peft(spec: Spec) -> bool:
    """Whether a version of PEFT whose methods are all known here wrote the adapter."""
    return (0, 0) < _peft_version(spec) <= _NEWEST_PEFT


def _printable(names: Iterable[str]) -> list[str]:
    return [ascii(name[:60]) for name in names]


def _keys(adapter: Adapter) -> Iterator[Finding]:
    spec = adapter.spec
    if _is_empty(adapter):
        if not adapter.tensors:
            yield build_finding("no_effect", "the file has no tensors")
            return
        reason = f"no tensor is used ({len(adapter.tensors):,} in the file)"
        yield _contradicted(adapter, spec.unclaimed) or _dropped("no_effect", reason, adapter, spec.unclaimed)
        return
    dropped = [name for name in spec.unclaimed if "lora_" in name or _is_of_method(spec, name)]
    unknown = sorted(set(spec.unclaimed) - set(dropped))
    if dropped:
        reason = f"{format_count(len(dropped), 'tensor')} would be dropped"
        yield _contradicted(adapter, dropped) or _dropped("keys_dropped", reason, adapter, dropped)
    if unknown:
        yield build_finding(
            "keys_unknown",
            f"nothing in the config accounts for {shorten_names(fold_layer_numbers(unknown))}",
            unknown,
        )


def _missing(adapter: Adapter) -> Iterator[Finding]:
    spec = adapter.spec
    missing = [
        role for role in METHODS[spec.method].required_shared(adapter.config) if role not in spec.shared
    ]
    if missing and not _is_empty(adapter):
        yield build_finding(
            "tensors_missing", f"{spec.method} needs {shorten_names(missing)}, but the file lacks them"
        )
    surplus = _unsaved_projections(adapter.config, spec) if spec.shared else []
    if surplus:
        reason = f"the config says that projections were not saved, but the file has {shorten_names(surplus)}"
        yield build_finding("keys_dropped", reason, surplus)
    if spec.method == "lora":
        yield from _other_roles(adapter.config, spec)


def _unsaved_projections(config: AdapterConfig, spec: Spec) -> Sequence[str]:
    from adaptry.adapters.methods.random_projections import unsaved_projections

    return unsaved_projections(config, spec.shared)


def _other_roles(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """Modules whose tensors do not match the config's flags, grouped by problem."""
    wrong: dict[tuple[str, str], list[str]] = {}
    variant = lora_variant(config)
    for module in spec.modules:
        wanted = variant.roles(module.kind)
        held = {role for role in module.tensors if not role.startswith(_FROM_TRAINING)}
        lacking, surplus = _role_names(wanted - held), _role_names(held - wanted)
        if lacking:
            reason = f"according to the config, modules have {', '.join(lacking)}, but the file has none"
            wrong.setdefault(("tensors_missing", reason), []).append(module.path)
        if surplus:
            reason = f"according to the config, modules have no {', '.join(surplus)}, but the file does"
            wrong.setdefault(("keys_dropped", reason), []).append(module.path)
    for (code, reason), paths in wrong.items():
        yield build_finding(code, f"{reason}: {shorten_names(fold_layer_numbers(paths))}", paths)


def _role_names(roles: Iterable[str]) -> list[str]:
    return [_ROLE_NAMES.get(role, role) for role in sorted(roles)]


def _is_empty(adapter: Adapter) -> bool:
    """Whether no tensor would be used. Shared tensors count only if the file names no modules."""
    spec, method = adapter.spec, METHODS[adapter.spec.method]
    is_whole = bool(spec.shared) and not (method.key_patterns and method.names_modules(adapter.config))
    return not (spec.modules or spec.extras or is_whole)


def _is_of_method(spec: Spec, name: str) -> bool:
    return METHODS[spec.method].role(name.removeprefix(PREFIX)) is not None


def _contradicted(adapter: Adapter, names: Sequence[str]) -> Finding | None:
    """A finding if the config's numbers contradict the tensors, for methods that check this."""
    if adapter.spec.method == "lora":
        return None
    from adaptry.adapters.methods.tensor_groups import contradiction

    why = contradiction(METHODS[adapter.spec.method], adapter.config, names, adapter.tensors)
    return build_finding("config_mismatch", why, names) if why else None


def _dropped(code: str, reason: str, adapter: Adapter, names: Sequence[str]) -> Finding:
    """The finding about tensors that are not used; ZeRO-3's empty ones have a remedy of their own."""
    if not names or any(adapter.tensors[name].numel for name in names):
        return build_finding(code, f"{reason}: {_why_dropped(adapter.spec, names)}", names)
    example = shorten_names(fold_layer_numbers(names))
    why = f"they have no elements, as ZeRO-3 saves weights that it did not gather ({example})"
    return build_finding(code, f"{reason}: {why}", names).model_copy(update={"remedy": _GATHER})


def _why_dropped(spec: Spec, names: Sequence[str]) -> str:
    if not names:
        return "they belong to modules, but the file has none"
    example, method = names[0], METHODS[spec.method]
    if all(name.startswith(PREFIX * 2) for name in names):
        return f"names begin with {PREFIX} twice ({example})"
    if not any(name.startswith(PREFIX) for name in names):
        if (wanted := list(filter(str.isidentifier, method.shared))) and not method.key_patterns:
            return f"PEFT looks for {', '.join(wanted)}, not for {example}"
        return f"names do not begin with {PREFIX} ({example})"
    if spec.method != "lora":
        return f"they do not form a complete module ({shorten_names(fold_layer_numbers(names))})"
    return f"they do not form a complete pair of factors ({shorten_names(fold_layer_numbers(names))})"


def _integers(adapter: Adapter) -> Iterator[Finding]:
    whole = _whole_numbers(adapter.spec)
    integers = [
        name for name, info in adapter.tensors.items() if info.dtype not in FLOATS and name not in whole
    ]
    if integers:
        dtypes = sorted({adapter.tensors[name].dtype for name in integers})
        yield build_finding(
            "integer_weights",
            f"{format_count(len(integers), 'tensor')} of dtype {', '.join(dtypes)} ({integers[0]})",
            integers,
        )


def _whole_numbers(spec: Spec) -> set[str]:
    """Findings about tensors that should have whole numbers: a method's positions and choices, the counter of
    a BatchNorm.
    """
    roles = METHODS[spec.method].integer_roles
    owners = (spec.shared, *(module.tensors for module in spec.modules))
    counters = {extra.tensor for extra in spec.extras if extra.target.endswith(".num_batches_tracked")}
    return counters | {
        name for tensors in owners for role, name in tensors.items() if role.partition(".")[0] in roles
    }


def _without_tensors(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    targets = config.fields.get("target_modules")
    paths = [module.path.replace(".base_layer", "") for module in spec.modules]
    paths += [extra.target.rpartition(".")[0] for extra in spec.extras]
    if isinstance(targets, list):
        reversed_paths = sorted(f".{path}"[::-1] for path in paths)
        idle = [
            name for name in targets if not _ends_one(name, reversed_paths) and not _is_excluded(name, config)
        ]
        if idle:
            yield build_finding(
                "targets_without_tensors",
                f"target_modules lists {shorten_names(sorted(idle))}, for which the file has no tensors",
                sorted(idle),
            )
    for pattern in config.whole_patterns:
        if (reason := config.patterns.refusal(pattern, WHOLE)) is not None:
            yield build_finding("pattern_refused", reason)
    saved = config.names("modules_to_save") if config.saved_modules else ()
    if saved and not any(extra.kind in ("module", "saved_embedding") for extra in spec.extras):
        # PEFT itself adds both `classifier` and `score` for SEQ_CLS, so this matters only if all are missing.
        yield build_finding(
            "saved_modules_without_tensors",
            f"modules_to_save lists {shorten_names(saved)}, but none is in the file",
            saved,
        )


def _adapted_and_saved(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """Modules that PEFT would both adapt and save. It saves modules whose names end with an item of
    modules_to_save, even within a word. It exempts from adaptation only those that end with the item as a
    whole word, and raises an error for the rest.
    """
    ends = config.saved_modules
    wrong = [
        module.path
        for module in spec.modules
        if module.path.endswith(ends) and (module.kind == "parameter" or not _is_one_of(module.path, ends))
    ]
    if wrong:
        items = shorten_names([end for end in ends if wrong[0].endswith(end)])
        names = shorten_names(fold_layer_numbers(wrong))
        reason = f"the config saves modules whose names end with {items} whole, and also adapts {names}"
        yield build_finding("config_refused", reason, wrong)
    yield from _saved_inside_layers(config, spec)


def _saved_inside_layers(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    """Items of modules_to_save that select parts of PEFT's own layers."""
    if not config.saved_modules:
        return
    from adaptry.checks.inner_modules import saved_inner_module  # few adapters save modules

    whole = ["*"] if spec.shared else []  # a file that names no modules applies to all of them
    paths = [module.path for module in spec.modules] or whole
    inner = saved_inner_module(spec.method, config.saved_modules, paths)
    if inner is not None:
        (name,) = fold_layer_numbers([inner])
        items = shorten_names([end for end in config.saved_modules if inner.endswith(end)])
        reason = f"modules_to_save lists {items}, by which PEFT also selects {name}, a part of its own layer"
        yield build_finding("config_refused", reason, [inner])


def _is_one_of(path: str, ends: Iterable[str]) -> bool:
    return any(f".{path}".endswith(f".{end}") for end in ends)


def _ends_one(name: str, reversed_paths: list[str]) -> bool:
    """Whether one of the paths is `name` or ends with it. The paths are reversed and sorted."""
    sought = f".{name}"[::-1]
    place = bisect_left(reversed_paths, sought)
    return place < len(reversed_paths) and reversed_paths[place].startswith(sought)


def _is_excluded(target: str, config: AdapterConfig) -> bool:
    """Whether exclude_modules may be the reason why a target has no tensors; a pattern always may."""
    excluded = config.fields.get("exclude_modules")
    if isinstance(excluded, list):
        return any(
            f".{target}".endswith(f".{name}") or f".{name}".endswith(f".{target}") for name in excluded
        )
    return isinstance(excluded, str)


def _traits(config: AdapterConfig, spec: Spec) -> Iterator[Finding]:
    changing = [word for trait, word in _CHANGES_BASE.items() if trait in spec.traits]
    if changing:
        init = str(config.fields.get("init_lora_weights"))[:40]
        yield build_finding(
            "depends_on_base",
            f"{' and '.join(changing)} (init_lora_weights={init!a}) moved part"
            " of the base's weights into the adapter",
        )
    for trait, sentence in _LIMITS.items():
        if trait in spec.traits:
            yield build_finding("limited_use", sentence)
