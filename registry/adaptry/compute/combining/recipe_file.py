"""A recipe in a file: YAML (so JSON too), read as untrusted, with the line or field in every complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adaptry.compute.recipes.combine import CombineRecipe, ModuleOverride
from adaptry.compute.recipes.merge import parse_dtype
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import split_weight

MAX_SIZE = 1 << 20


def read_recipe(path: Path) -> CombineRecipe:
    """Raises `NotFound`, `Invalid`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read the recipe {path}: {error.strerror}") from error
    return parse_recipe(parse_yaml(data, str(path)), str(path))


def parse_yaml(data: bytes, what: str) -> dict[str, Any]:
    """A mapping. (`Any`: YAML has no type until a model gives it one.) Raises `Invalid`.

    Aliases are refused: a few of them unfold into a document of any size.
    """
    import yaml

    if len(data) > MAX_SIZE:
        raise Invalid(f"the recipe {what} is {len(data):,} bytes; at most {MAX_SIZE:,} are read")
    try:
        node = yaml.compose(data, yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, yaml.SafeLoader)):
            raise Invalid(
                f"the recipe {what} has a YAML alias (*name), which recipes do without; write it out"
            )
        _check_unique(node, what)
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Invalid(f"the recipe {what} is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise Invalid(f"the recipe {what} is not a mapping (method: …, inputs: […])")
    return document


def parse_recipe(document: dict[str, Any], what: str) -> CombineRecipe:
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
    said = _SAID.get(first["type"]) or str(first["msg"]).removeprefix("Value error, ")
    raise Invalid(f"the recipe {what}: {where + ': ' if where else ''}{said}")


_KEYS = ", ".join(CombineRecipe.model_fields)
_SAID = {
    "extra_forbidden": (
        f"no such key; a recipe has {_KEYS}; one of its modules {', '.join(ModuleOverride.model_fields)}"
    ),
    "missing": "it is missing",
    "tuple_type": "a list is expected here, as in [acme/tone, acme/facts=0.5]",
    "model_type": "it is neither REF=WEIGHT nor a mapping (an input has source and weight)",
    "dict_type": "a mapping is expected here, as in {density: 0.2}",
}
"""What is expected, where pydantic says it in words of Python."""


def _input(entry: object) -> object:
    if not isinstance(entry, str):
        return entry
    source, weight = split_weight(entry)
    return {"source": source, "weight": weight}


def _check_unique(node: Any, what: str) -> None:
    """A key given twice: YAML takes the last, we refuse it. (`Any`: PyYAML's nodes are untyped.)"""
    import yaml

    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise Invalid(f"the recipe {what} has the key {str(twice)[:80]!r} twice; which one is meant?")
        for _, value in node.value:
            _check_unique(value, what)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_unique(value, what)
