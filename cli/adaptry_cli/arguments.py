"""Parses arguments into values (refs, names, folders, `key=value` pairs), with completion for each.

All other code gets a `Ref` and not a string.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.refs import AdapterName, Ref, is_folder, is_folder_path

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from pydantic import BaseModel

    from adaptry.core.value import FrozenValue

Model = TypeVar("Model", bound="BaseModel | FrozenValue")
Command = TypeVar("Command", bound=Callable[..., object])
Source = Ref | Path
"""An adapter in a registry, or in a folder."""


_REQUIREMENTS = {
    "description": "a description (--description) may have at most 4096 characters",
    "tags": (
        "a tag (--tag) must have 1 to 64 characters, without spaces and commas; an adapter may have at"
        " most 64 tags"
    ),
    "metrics": (
        "the name of a metric (--metric) must have 1 to 64 characters: letters, digits, '_', '.', '/' and"
        " '-', the first a letter or a digit. A push takes at most 64 metrics"
    ),
    "force_reason": "a reason (--reason) must have 3 to 1024 characters, so that others understand it later",
    "reason": "a reason (--reason) must have 3 to 1024 characters, so that others understand it later",
    "inputs": "1 to 64 adapters can be combined, each with a finite weight",
    "max_shard_size": "the size of a shard (--max-shard-size) must be at least 1 MiB",
    "interval": "the time between steps (--every) must be from 1s to 30d",
}
"""The accepted values of an option, by its field in the request model."""


class _CompletedParam(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """An argument that a shell can complete. (`Any`, also below: each kind has its own value.)"""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if self.may_be_path and is_folder(incomplete):
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in self.complete(ctx, incomplete)]

    may_be_path = False
    completion = ""
    """The name of the function in `candidates` that completes this argument."""

    def complete(self, ctx: click.Context, typed: str) -> list[str]:
        """The completions of `typed`."""
        from adaptry_cli import candidates  # needed only for completion

        found: list[str] = getattr(candidates, self.completion)(ctx, typed)
        return found


class RefParam(_CompletedParam):
    name = "ref"
    completion = "refs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ref:
        return value if isinstance(value, Ref) else Ref.parse(value)


class NameParam(_CompletedParam):
    name = "name"
    completion = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AdapterName:
        return value if isinstance(value, AdapterName) else AdapterName.parse(value)


class SourceParam(_CompletedParam):
    """A ref, or a folder that begins with `./`, `../`, `/` or `~`."""

    name = "ref|dir"
    completion = "refs"
    may_be_path = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Source:
        if isinstance(value, Ref | Path):
            return value
        return Path(value).expanduser() if is_folder_path(value) else Ref.parse(value)


class _WordParam(_CompletedParam):
    """An argument whose value stays a string, with completion."""

    name = "text"

    def __init__(self, completion: str, *, may_be_path: bool = False) -> None:
        self.completion = completion
        self.may_be_path = may_be_path


class RuntimeParam(_CompletedParam):
    """An engine with its version and limits."""

    name = "ENGINE[@VERSION][,OPTION=VALUE…]"  # what --help shows
    completion = "engines"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        from adaptry.checks.runtimes import parse_runtime

        return parse_runtime(value) if isinstance(value, str) else value


class DtypeParam(_CompletedParam):
    """A dtype that we write, as safetensors spells it."""

    name = "dtype"

    def complete(self, ctx: click.Context, typed: str) -> list[str]:
        return [name for name in ("float32", "float16", "bfloat16") if name.startswith(typed)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from adaptry.compute.recipes.merge import parse_dtype

        return parse_dtype(value)


REF = RefParam()
NAME = NameParam()
SOURCE = SourceParam()
RUNTIME = RuntimeParam()
DTYPE = DtypeParam()
INPUT = _WordParam("refs", may_be_path=True)
"""A ref or folder that is parsed later, as it may have a weight (`acme/tone=0.5`)."""
BASE = _WordParam("bases", may_be_path=True)
METHOD = _WordParam("methods")
ENGINE = _WordParam("engines")
ALIAS = _WordParam("aliases")
VERSION = _WordParam("versions")
NAMESPACE = _WordParam("namespaces")
ADAPTER_OR_NAMESPACE = _WordParam("names")
QUERY = _WordParam("query_terms")
SEARCH_ORDER = _WordParam("search_orders")
FOLDER = click.Path(path_type=Path)


def required_folder(text: str) -> Path:
    """A folder, for an argument that may also be a name. Raises `InvalidRef` for `out`: only text that begins
    with `./`, `../`, `/` or `~` is a folder.
    """
    if not is_folder(text):
        if (path := Path(text)).exists():
            kind = "folder" if path.is_dir() else "file"
            raise InvalidRef(f"{text[:200]!r} could also be a name: write ./{text[:200]} for the {kind}")
        raise InvalidRef(f"not a folder: {text[:200]!r}; a folder is written ./DIR")
    return Path(text).expanduser()


def base_source(text: str) -> Path | str:
    """The base that an argument names: a folder, or a name or id in the registry. Raises `InvalidRef`."""
    return Path(text).expanduser() if is_folder_path(text, of_base=True) else text


def parse_named(text: str) -> Source:
    """The adapter that an argument names; a path stays as typed. Raises `InvalidRef`."""
    return Path(text) if is_folder_path(text) else Ref.parse(text)


def parse_metrics(pairs: Sequence[str]) -> dict[str, float]:
    """Parses metrics such as `accuracy=0.91`. Raises `Invalid`."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, equals, text = pair.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not equals or not name or not math.isfinite(value):
            raise Invalid(f"not a metric: {pair[:80]!r} (write name=number, as in accuracy=0.91)")
        if name in found:
            raise Invalid(f"the metric {name} is given twice")
        found[name] = value
    return found


def validate_options(model: type[Model], **fields: object) -> Model:
    """Validates an option's text. Raises `Invalid` with the option and its accepted values."""
    from adaptry.core.validation import validated  # not needed by every command

    return validated(model, _REQUIREMENTS, **fields)


def require_usage(condition: bool, sentence: str) -> None:
    """Raises a usage error unless the call makes sense."""
    if not condition:
        raise click.UsageError(sentence)


def parse_parameters(pairs: tuple[str, ...]) -> dict[str, object]:
    """Parses parameters such as `density=0.3`: each value is a number, true or false, or otherwise a text.
    Raises `Invalid`.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise Invalid(f"not a parameter: {pair[:80]!r} (write name=value, as in density=0.3)")
        if name in found:
            raise Invalid(f"the parameter {name} is given twice")
        found[name] = _number_or_word(text)
    return found


def _number_or_word(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


engine_key_option = click.option(
    "--engine-key",
    "key",
    envvar="ADAPTRY_ENGINE_KEY",
    metavar="KEY",
    help="The engine's API key, if it requires one; also ADAPTRY_ENGINE_KEY.",
)
served_base_option = click.option(
    "--base",
    metavar="NAME|ID",
    type=BASE,
    help="The base that the engine serves, if the registry does not know the engine's name for it.",
)


def declared_runtime_option(help: str) -> Callable[[Command], Command]:
    """`--runtime` for a running engine, as `declared`: a declared value precedes what the engine reports."""
    return click.option("--runtime", "declared", type=RUNTIME, help=f"{help}, as in vllm,max_lora_rank=64.")
