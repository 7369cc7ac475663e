"""The OpenAPI document: FastAPI's own, with additions.

FastAPI knows paths, parameters and models. This module adds a summary for each operation (the first line of
the route's docstring), the one schema of errors, the rules for every operation, and examples, which are
recorded exchanges (`examples.json`, written by `python -m tests.api.record_examples`).
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from adaptry import __version__
from adaptry_api.base_document import NewBase
from adaptry_api.description.introduction import TAGS, introduction
from adaptry_api.description.parameters import PARAMETERS
from adaptry_api.errors import Problem

_STREAM = "text/event-stream"
_SCHEMAS = "#/components/schemas/{model}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, built once for an application. (`Any`: OpenAPI's own JSON, everywhere in this file.)"""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=__version__,
            description=introduction(),
            routes=app.routes,
            tags=[{"name": name, "description": text} for name, text in TAGS.items()],
            separate_input_output_schemas=False,
        )
        _add_schemas(document)
        document = _name_pages(document)
        examples = json.loads(files(__package__).joinpath("examples.json").read_text(encoding="utf-8"))
        for path in document["paths"].values():
            for operation in path.values():
                _complete(operation, examples.get(operation["operationId"], {}))
        app.openapi_schema = document
    return app.openapi_schema


def _add_schemas(document: dict[str, Any]) -> None:
    """Adds models that no route names: errors, and the one body that a route reads by itself."""
    _, found = models_json_schema(
        [(Problem, "serialization"), (NewBase, "validation")], ref_template=_SCHEMAS
    )
    for name, schema in found["$defs"].items():
        document["components"]["schemas"].setdefault(name, schema)


def _name_pages(document: dict[str, Any]) -> dict[str, Any]:
    """Names the schema of a page of adapters `AdapterInfoPage`, which pydantic calls `Page_AdapterInfo_`."""
    text = re.sub(r'\bPage_(\w+?)_"', r'\1Page"', json.dumps(document))
    renamed: dict[str, Any] = json.loads(re.sub(r'"Page\[(\w+)\]"', r'"\1Page"', text))
    return renamed


def _complete(operation: dict[str, Any], example: dict[str, Any]) -> None:
    operation["summary"] = operation["description"].partition("\n")[0].removesuffix(".")
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        parameter.setdefault("description", PARAMETERS.get(name, ""))
        if name in example.get("parameters", {}):
            parameter["example"] = example["parameters"][name]
    bodies = {"request": operation.get("requestBody", {})}
    bodies["response"] = operation["responses"].get(example.get("status"), {})
    for part, body in bodies.items():
        for kind, content in body.get("content", {}).items():
            if part in example and kind != _STREAM:
                content["example"] = example[part]
