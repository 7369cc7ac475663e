"""The words of a call as values: refs, names, folders, `key=value` pairs. Strings stop here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel, ValidationError

from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.refs import GRAMMAR, AdapterName, Ref, is_folder

Model = TypeVar("Model", bound=BaseModel)
Command = TypeVar("Command", bound=Callable[..., object])
Source = Ref | Path
"""An adapter in a registry, or in a folder."""


_TAKES = {
    "description": "a description (--description) has at most 4096 characters",
    "tags": (
        "a tag (--tag) has 1 to 64 characters, none of them a blank or a comma,"
        " and an adapter at most 64 tags"
    ),
    "metrics": (
        "the name of a metric (--metric) has 1 to 64 characters: letters, digits, '_', '.', '/' and '-', the "
        "first a letter or digit; at most 64 metrics go along"
    ),
    "force_reason": "a reason (--reason) has 3 to 1024 characters: whoever reads it later should understand",
    "reason": "a reason (--reason) has 3 to 1024 characters: whoever reads it later should understand",
    "inputs": "1 to 64 adapters go in, each with a finite weight",
    "max_shard_size": "a shard (--max-shard-size) holds at least 1 MiB",
}
"""What a value takes, by its field in the models that calls are made into, in the words of the call."""


class _ParsedParam(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """A word that one of ours parses; its error is ours too. (`Any`: each kind has its own value.)"""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from adaptry_cli.completion import complete_names

        return [CompletionItem(name) for name in complete_names(incomplete)]


class RefParam(_ParsedParam):
    name = "ref"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ref:
        return value if isinstance(value, Ref) else Ref.parse(value)


class NameParam(_ParsedParam):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AdapterName:
        return value if isinstance(value, AdapterName) else AdapterName.parse(value)


class SourceParam(_ParsedParam):
    """A ref, or a folder written so that nobody can take it for a ref."""

    name = "ref|dir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Source:
        if isinstance(value, Ref | Path):
            return value
        return Path(value).expanduser() if is_folder_path(value) else Ref.parse(value)


class RuntimeParam(click.ParamType):  # type: ignore[type-arg]  # as above
    """An engine with its version and limits."""

    name = "ENGINE[@VERSION][,OPTION=VALUE…]"  # what --help shows

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        from adaptry.checks.runtimes import parse_runtime

        return parse_runtime(value) if isinstance(value, str) else value


class DtypeParam(click.ParamType):  # type: ignore[type-arg]  # as above
    """A dtype that we write, as safetensors spells it."""

    name = "dtype"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from adaptry.compute.recipes.merge import parse_dtype

        return parse_dtype(value)


REF = RefParam()
NAME = NameParam()
SOURCE = SourceParam()
RUNTIME = RuntimeParam()
DTYPE = DtypeParam()
FOLDER = click.Path(path_type=Path)


def is_folder_path(text: str) -> bool:
    """Whether a word that may be a folder or a name in the registry is a folder.

    Raises `InvalidRef` where it could be either, showing how to write both.
    """
    if is_folder(text):
        return True
    if Path(text).is_dir():
        try:
            named = f"{Ref.parse(text).name}@latest"
        except InvalidRef:
            named = f"namespace/name ({GRAMMAR})"
        raise InvalidRef(
            f"{text!r} is also a folder here: write ./{text} for the folder, or {named} for the registry's"
        )
    return False


def parse_metrics(pairs: Sequence[str]) -> dict[str, float]:
    """`accuracy=0.91` and the like. Raises `Invalid`."""
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
    """A value from what was typed. Raises `Invalid` with the option and what it takes."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if field in _TAKES:
        raise Invalid(_TAKES[field])
    reason = first["msg"].removeprefix("Value error, ")
    raise Invalid(f"{field.replace('_', ' ')}: {reason}" if field else reason)


def require_usage(condition: bool, sentence: str) -> None:
    """Raises a usage error unless the call makes sense."""
    if not condition:
        raise click.UsageError(sentence)


def parse_parameters(pairs: tuple[str, ...]) -> dict[str, object]:
    """`density=0.3` and the like: a number, true or false, else a word. Raises `Invalid`."""
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
    help="The engine's API key, if it has one; also ADAPTRY_ENGINE_KEY.",
)
served_base_option = click.option(
    "--base", metavar="NAME|ID", help="The base it serves, where its own name for it is not known here."
)


def declared_runtime_option(help: str) -> Callable[[Command], Command]:
    """`--runtime` for a running engine, as `declared`: a declared value precedes what the engine reports."""
    return click.option("--runtime", "declared", type=RUNTIME, help=f"{help}, as in vllm,max_lora_rank=64.")
