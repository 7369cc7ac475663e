"""The destination of a result, with the metrics, alias and reason for a version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, is_folder_path, parse_alias
from adaptry.core.validation import validated
from adaptry.facade.arguments import parse_name
from adaptry.registry.records import PushOptions

SENTENCES: Mapping[str, str] = {
    "description": "a description may have at most 4096 characters",
    "tags": "tags must be at most 64 strings of 1 to 64 characters, without spaces or commas",
    "metrics": (
        "metrics must be at most 64 numbers (not True or False) by name; a name must have 1 to 64 characters:"
        " letters, digits, '_', '.', '/' and '-', the first a letter or digit"
    ),
    "force_reason": "force_reason must have 3 to 1024 characters, so that others understand it later",
}
"""The error message for an invalid value of each argument."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder or a name, the arguments about a resulting version, and whether an adapter in a folder is
    replaced.
    """

    place: Path | AdapterName
    options: PushOptions
    replace: bool


def push_options(
    metrics: Mapping[str, float] | None, alias: str | None, force_reason: str | None
) -> PushOptions:
    """The options of a push of a result. Raises `Invalid`, `InvalidRef`."""
    return validated(
        PushOptions,
        SENTENCES,
        metrics=dict(metrics or {}),
        force_reason=force_reason,
        alias=None if alias is None else parse_alias(alias),
    )


def parse_destination(
    to: AdapterName | Path | str,
    metrics: Mapping[str, float] | None,
    alias: str | None,
    force_reason: str | None,
    replace: bool,
) -> Destination:
    """The destination of a result. Raises `Invalid` for arguments that do not suit it, and `InvalidRef`."""
    if isinstance(to, str) and is_folder_path(to):
        to = Path(to)
    if isinstance(to, Path):
        if metrics or alias is not None or force_reason is not None:
            raise Invalid(
                "metrics, alias and force_reason belong to a version: pass a name as to=, or leave them out"
            )
        return Destination(to.expanduser(), PushOptions(), replace)
    name = parse_name(to)
    if replace:
        raise Invalid(
            f"replace is for folders; {name} gets a new version, and nothing is replaced: leave it out"
        )
    return Destination(name, push_options(metrics, alias, force_reason), False)
