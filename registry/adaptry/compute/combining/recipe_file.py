"""A recipe in a file: untrusted YAML (or JSON), in our format or mergekit's. Every error names the line or
field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adaptry.compute.combining.mergekit_recipe import is_mergekit, translate_mergekit
from adaptry.compute.recipes.combine import CombineRecipe, ModuleOverride
from adaptry.compute.recipes.merge import parse_dtype
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import split_weight

MAX_SIZE = 1 << 20


def read_recipe(path: Path, show: Callable[[str], object] = lambda text: None) -> CombineRecipe:
    """Reads a recipe. mergekit's YAML is translated, and `show` is called with the translated recipe as YAML.
    Raises `NotFound`, `Invalid`, `Unsupported`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read the recipe {path}: {error.strerror}") from error
    document = parse_yaml(data, str(path))
    if is_mergekit(document):
        import yaml

        document = translate_mergekit(document, str(path))
        show(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return parse_recipe(document, str(path))


def parse_yaml(data: bytes, label: str) -> dict[str, Any]:
    """Parses a mapping. (`Any`: YAML has no type until a model gives it one.) Raises `Invalid`.

    Aliases are refused, since a few of them can expand to a document of any size.
    """
    import yaml

    if len(data) > MAX_SIZE:
        raise Invalid(f"the recipe {label} is {len(data):,} bytes; at most {MAX_SIZE:,} are read")
    try:
        node = yaml.compose(data, yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, yaml.SafeLoader)):
            raise Invalid(
                f"the recipe {label} has a YAML alias (*name), which recipes cannot use; write it out"
            )
        _check_unique(node, label)
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Invalid(f"the recipe {label} is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise Invalid(f"the recipe {label} is not a mapping (method: …, inputs: […])")
    return document


def parse_recipe(document: dict[str, Any], label: str) -> CombineRecipe:
    """A document's recipe; an input may be written `source=weight`. Raises `Invalid` with the field."""
    inputs = document.get("inputs")
    if isinstance(inputs, list):
        document = {**document, "inputs": [_input(entry) for entry in inputs]}
    if isinstance(dtype := document.get("dtype"), str):
        document = {**document, "dtype": parse_dtype(dtype)}
    try:
        return CombineRecipe.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = _REASONS.get(first["type"]) or str(first["msg"]).removeprefix("Value error, ")
    raise Invalid(f"the recipe {label}: {where + ': ' if where else ''}{reason}")


_KEYS = ", ".join(CombineRecipe.model_fields)
_REASONS = {
    "extra_forbidden": (
        f"unknown key; a recipe has {_KEYS}; an item of its modules {', '.join(ModuleOverride.model_fields)}"
    ),
    "missing": "it is missing",
    "tuple_type": "must be a list, such as [acme/tone, acme/facts=0.5]",
    "model_type": "it is neither REF=WEIGHT nor a mapping (an input has source and weight)",
    "dict_type": "must be a mapping, such as {density: 0.2}",
}
"""Messages instead of pydantic's, which use terms of Python."""


def _input(entry: object) -> object:
    if not isinstance(entry, str):
        return entry
    source, weight = split_weight(entry)
    return {"source": source, "weight": weight}


def _check_unique(node: Any, what: str) -> None:
    """Refuses duplicate keys; YAML would silently use the last one. (`Any`: PyYAML's nodes are untyped.)"""
    import yaml

    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise Invalid(f"the recipe {what} has the key {str(twice)[:80]!r} twice; remove one")
        for _, value in node.value:
            _check_unique(value, what)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_unique(value, what)
