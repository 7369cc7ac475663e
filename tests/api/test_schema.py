"""The OpenAPI description matches the server, and requests generated from it cause no server error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from adaptry.adapters.adapter import Adapter
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions
from adaptry_api.testing import Server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
CASES = 12  # of each operation
OPERATIONS = 40  # at least this many
REACHED = 20  # routes for which a call must have succeeded
ADMINS_TOKEN = 1
SHORTLY = 0.2  # seconds that a call which waits for events may wait


def test_no_generated_request_makes_the_server_fail_or_its_description_false(
    start: Callable[..., Server], tone: Adapter
) -> None:
    server = start()
    pushed = push(
        server.registry(), tone, "acme/tone", options=PushOptions(alias="prod", metrics={"f1": 0.5})
    )
    real = {
        "namespace": "acme",
        "name": "tone",
        "selector": "prod",
        "alias": "prod",
        "revision": str(pushed.version.digest),
        "path": "adapter_config.json",
    }
    schema = schemathesis.openapi.from_url(f"{server.url}/api/v1/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    for operation in operations:
        attack(operation, real, {"Authorization": f"Bearer {server.admin}"})
    assert len(operations) >= OPERATIONS
    counts = server.call("GET", "/metrics").body.decode()
    assert len(set(re.findall(r'route="([^"]+)",status="2', counts))) >= REACHED


def attack(
    operation: APIOperation[Any, Any, Any, Any], real: dict[str, str], headers: dict[str, str]
) -> None:
    """Generated calls; those that delete nothing are also made on existing resources."""
    may_be_real = operation.method.upper() != "DELETE" and not operation.path.endswith("/rename")

    @settings(
        max_examples=CASES,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), is_real=st.booleans())
    def try_one(case: schemathesis.Case[Any], is_real: bool) -> None:
        assume(case.path_parameters.get("id") != ADMINS_TOKEN)
        if is_real and may_be_real:
            case.path_parameters |= {key: real[key] for key in case.path_parameters if key in real}
        if "wait" in case.query and is_long(case.query["wait"]):
            case.query["wait"] = SHORTLY
        case.call_and_validate(checks=CHECKS, headers=headers, timeout=60)

    try_one()


def is_long(wait: object) -> bool:
    try:
        return float(str(wait)) > SHORTLY
    except ValueError:
        return False
