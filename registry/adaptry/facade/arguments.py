"""Converts strings to values: refs, names, folders, bases, dtypes. Other modules get only the values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from adaptry.adapters.adapter import Adapter
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.refs import AdapterName, Ref, is_folder_path
from adaptry.core.validation import validated
from adaptry.operations.sources import ParentSource, source_label
from adaptry.registry.base_info import BaseInfo
from adaptry.registry.records import PushResult, VersionInfo

if TYPE_CHECKING:
    import torch

    from adaptry.compute.recipes.merge import Dtype, RecipeInput

RefLike: TypeAlias = Ref | VersionInfo | PushResult | str
"""A version: `"acme/tone@prod"`, a `Ref`, or a version that a call returned."""
SourceLike: TypeAlias = Adapter | Ref | VersionInfo | PushResult | Path | str
"""An adapter: a version as in `RefLike`, a folder (a `Path`, or a string that begins with `./`, `../`, `/` or
`~`), or an `Adapter` that is open."""
BaseLike: TypeAlias = BaseInfo | Digest | Path | str
"""A base: its name or id in the registry, or a folder (as in `SourceLike`)."""
DtypeLike: TypeAlias = "str | torch.dtype"
"""A floating-point type: `"float32"`, `"float16"`, `"bfloat16"`, or torch's."""


def parse_ref(value: RefLike) -> Ref:
    """Converts an argument to a ref. Raises `InvalidRef`, whose message shows the grammar."""
    match value:
        case Ref():
            return value
        case VersionInfo():
            return value.revision_ref
        case PushResult():
            return value.version.revision_ref
        case str():
            return Ref.parse(value)
    raise InvalidRef(f"a version must be a string such as 'acme/tone@3', not {type(value).__name__}")


def parse_name(value: AdapterName | str) -> AdapterName:
    """Converts an argument to an adapter's name. Raises `InvalidRef`, whose message shows the grammar."""
    if isinstance(value, AdapterName):
        return value
    if isinstance(value, str):
        return AdapterName.parse(value)
    raise InvalidRef(f"an adapter must be a string such as 'acme/tone', not {type(value).__name__}")


def parse_source(value: SourceLike) -> ParentSource:
    """Converts an argument to an adapter, a folder or a ref. Raises `InvalidRef`, even for a folder's name
    that may be a ref; the message shows how to write both.
    """
    if isinstance(value, Adapter):
        return value
    if isinstance(value, Path):
        return value.expanduser()
    if isinstance(value, str) and is_folder_path(value):
        return Path(value).expanduser()
    return parse_ref(value)


def parse_base(value: BaseLike) -> Path | str:
    """Converts an argument to a base. Raises `Invalid` for a text that is not the name of a base."""
    match value:
        case BaseInfo():
            return str(value.id)
        case Digest():
            return str(value)
        case Path():
            return value.expanduser()
        case str():
            return Path(value).expanduser() if is_folder_path(value, of_base=True) else value
    raise Invalid(f"a base is a name, an id or a folder, not {type(value).__name__}")


def parse_dtype(value: DtypeLike | None) -> Dtype | None:
    """Converts an argument to a dtype. Raises `Invalid` for anything but float32, float16 and bfloat16."""
    from adaptry.compute.recipes import merge

    return None if value is None else merge.parse_dtype(str(value).removeprefix("torch."))


Weighted: TypeAlias = (
    SourceLike
    | Sequence[SourceLike | tuple[SourceLike, float]]
    | Mapping[str, float]
    | Mapping[Path, float]
    | Mapping[Ref, float]
)
"""Adapters that go into a result: one, several, or several with weights: `{"acme/tone": 1.0, "./out": 0.5}`,
or `[(version, 1.0), (adapter, 0.5)]`. An adapter without a weight has 1."""


def parse_inputs(inputs: Weighted) -> list[tuple[ParentSource, RecipeInput]]:
    """Each adapter, with its name and weight in the recipe. Raises `InvalidRef`, `Invalid` (a bad weight)."""
    from adaptry.compute.recipes.merge import RecipeInput

    found = []
    for value, weight in _weighted(inputs):
        source = _parse_input(value)
        found.append((source, validated(RecipeInput, source=source_label(source), weight=weight)))
    return found


def _weighted(inputs: Weighted) -> Iterator[tuple[SourceLike, float]]:
    if isinstance(inputs, Mapping):
        yield from inputs.items()
    elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
        for each in inputs:
            yield each if isinstance(each, tuple) else (each, 1.0)
    else:
        yield inputs, 1.0


def _parse_input(value: SourceLike) -> ParentSource:
    try:
        return parse_source(value)
    except InvalidRef as error:
        if isinstance(value, str) and "=" in value:
            name, _, weight = value.rpartition("=")
            raise InvalidRef(f"pass weights in a mapping: {{{name[:200]!r}: {weight[:40]}}}") from error
        raise
