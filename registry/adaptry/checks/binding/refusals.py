"""Why PEFT would not load an adapter onto a base at all, where the config and the names tell.

Each was seen in PEFT 0.21: an exception of `PeftModel.from_pretrained`, whose cause is said here in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.bases.model_names import ModelNames
from adaptry.bases.module_map import ExtraTarget, ModuleMap
from adaptry.checks.binding.targets import ModuleTargets
from adaptry.checks.formatting import fold_layer_numbers, shorten_names


def refusals(
    adapter: Adapter, names: ModelNames, targets: ModuleTargets, module_map: ModuleMap
) -> Iterator[str]:
    """Sentences without an end mark, for each reason."""
    if targets.has_none:
        yield "the config selects no module (target_modules)"
    yield from _saved_modules(adapter, names)
    yield from _token_rows(adapter, module_map)


def _saved_modules(adapter: Adapter, names: ModelNames) -> Iterator[str]:
    """Of a module in `modules_to_save`, PEFT reads every parameter from the file, and fails without one."""
    listed = tuple(adapter.config.names("modules_to_save"))
    if not listed:
        return
    lost = sorted(
        parameter
        for parameter in names.parameters
        if adapter.config.is_saved(parameter.rpartition(".")[0])
        and not any(
            f"{PREFIX}{name}" in adapter.tensors for name in (parameter, *_spelled_otherwise(parameter))
        )
    )
    if lost:
        yield (
            f"modules_to_save lists {shorten_names(listed)}, and the file lacks"
            f" {shorten_names(fold_layer_numbers(lost))}"
        )


def _spelled_otherwise(parameter: str) -> Iterator[str]:
    """The names of the same parameter in other versions of transformers, of which the model has one."""
    return (new + parameter.removeprefix(old) for new, old in SPELLINGS if parameter.startswith(old))


def _token_rows(adapter: Adapter, module_map: ModuleMap) -> Iterator[str]:
    fields = adapter.config.fields
    indices = fields.get("trainable_token_indices")
    if indices is None:
        indices = fields.get("token_indices") if adapter.spec.method == "trainable_tokens" else None
    wanted = indices if isinstance(indices, dict) else {"": indices}
    for end, rows in wanted.items():
        if isinstance(rows, list) and not _is_tied_twin(module_map, wanted, end):
            yield from _rows(module_map, end, rows)


def _is_tied_twin(module_map: ModuleMap, wanted: Mapping[str, object], end: str) -> bool:
    """Whether the file has these rows for the other side of a tied embedding: PEFT keeps them once."""
    same = tuple(other for other, rows in wanted.items() if other != end and rows == wanted[end])
    paths = {extra.extra.target.removesuffix(".weight"): extra for extra in _held(module_map)}
    return (
        bool(same)
        and not any(path.endswith(end) for path in paths)
        and any(extra.tied and path.endswith(same) for path, extra in paths.items())
    )


def _held(module_map: ModuleMap) -> list[ExtraTarget]:
    return [extra for extra in module_map.extras if extra.extra.kind == "token_rows"]


def _rows(module_map: ModuleMap, end: str, rows: list[object]) -> Iterator[str]:
    """One embedding's indices: each a row of the embedding, none twice, as many as the file has rows."""
    held = [extra for extra in _held(module_map) if extra.extra.target.removesuffix(".weight").endswith(end)]
    if not held:
        embedding = end or "the input embedding"
        yield f"the config trains {len(rows):,} token rows of {embedding}, and the file has none"
        return
    for extra in held:
        count = extra.extra.shape[0] if extra.extra.shape else 0
        if count != len(rows):
            listed = f"the config lists {len(rows):,} token rows for {extra.extra.target}"
            yield f"{listed}, and the file has {count:,}"
    wrong = [row for row in rows if type(row) is not int or row < 0]
    if wrong:
        yield f"the config lists {str(wrong[0])[:20]} as a token row"
    twice = [row for row, times in Counter(map(str, rows)).items() if times > 1]
    if twice:
        yield f"the config lists token row {twice[0][:20]} twice"
