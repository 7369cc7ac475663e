"""The OpenAPI description is complete for readers and simple enough for client generators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from adaptry_api.testing import Server

Json = dict[str, Any]
"""(`Any`: JSON.)"""


@pytest.fixture
def description(server: Server) -> Json:
    found: Json = server.call("GET", "/openapi.json", token=None).json
    return found


def operations(description: Json) -> Iterator[Json]:
    for path in description["paths"].values():
        yield from path.values()


def bodies(operation: Json) -> Iterator[Json]:
    """The bodies of an operation's requests and successful responses."""
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            yield from response.get("content", {}).values()


def test_every_operation_has_a_unique_name_a_summary_and_a_description(description: Json) -> None:
    found = list(operations(description))
    assert len({one["operationId"] for one in found}) == len(found)
    for one in found:
        assert one["operationId"].isidentifier()
        assert "api_v1" not in one["operationId"]
        assert 10 < len(one["summary"]) <= 80, one["summary"]
        assert one["description"].startswith(one["summary"])
        assert all(parameter["description"] for parameter in one.get("parameters", ())), one["operationId"]


def test_every_operation_has_examples_of_its_request_and_response(description: Json) -> None:
    """Run `python -m tests.api.record_examples` after changing a route."""
    for one in operations(description):
        required = [parameter for parameter in one.get("parameters", ()) if parameter["required"]]
        assert all("example" in parameter for parameter in required), one["operationId"]
        contents = list(bodies(one))
        if contents:
            assert any("example" in content for content in contents), one["operationId"]
        if "requestBody" in one:
            assert all("example" in body for body in one["requestBody"]["content"].values()), one[
                "operationId"
            ]


def test_examples_match_their_schemas(description: Json) -> None:
    for one in operations(description):
        for body in bodies(one):
            if "example" in body and "schema" in body:
                schema = {**body["schema"], "components": description["components"]}
                wrong = [error.message for error in Draft202012Validator(schema).iter_errors(body["example"])]
                assert not wrong, (one["operationId"], wrong)


def test_errors_have_one_schema_and_no_model_has_two(description: Json) -> None:
    for one in operations(description):
        for status in ("4XX", "5XX"):
            content = one["responses"][status]["content"]
            assert content == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }
    names = description["components"]["schemas"]
    assert not [name for name in names if name.endswith(("-Input", "-Output", "_"))]
    titles = [schema["title"] for schema in names.values() if "title" in schema]
    assert len(titles) == len(set(titles))


def test_the_introduction_names_every_code_that_an_error_can_have(server: Server, description: Json) -> None:
    text = description["info"]["description"]
    refused = [
        server.call("GET", "/api/v1/adapters", token=None),
        server.call("GET", "/api/v1/adapters/acme/none"),
        server.call("PUT", "/api/v1/adapters/acme/none/aliases/prod", {"to": f"sha256:{'0' * 64}"}),
        server.call("DELETE", "/api/v1/whoami"),
        server.call("GET", "/api/v1/search?q=nothing:here"),
    ]
    assert len({answer.json["code"] for answer in refused}) == len(refused)
    assert all(f"| {answer.status} | `{answer.json['code']}` |" in text for answer in refused)
