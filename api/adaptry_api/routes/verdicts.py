"""What runtimes make of a version: computed from its headers and config when asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel

from adaptry.adapters.adapter import open_content
from adaptry.checks.runtimes import Verdict, parse_runtime, verdict, verdicts
from adaptry.operations.known_base import base_of
from adaptry.operations.transfer.remote import RevisionContent
from adaptry.registry import protocol
from adaptry_api.auth_policy import CallersRegistry, guarded
from adaptry_api.etags import fresh
from adaptry_api.routes.parameters import PathRef

ROUTES = guarded(
    f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions/{{selector}}/verdicts", "versions"
)

Runtimes = Annotated[
    list[str] | None,
    Query(
        max_length=32,
        description="As in vllm@0.33,max_lora_rank=64; without any, every engine at the version that was read.",
    ),
]


class Verdicts(BaseModel):
    """One verdict for each runtime that was asked about, in that order."""

    verdicts: tuple[Verdict, ...]


@ROUTES.get("", response_model=Verdicts)
def show(request: Request, ref: PathRef, registry: CallersRegistry, runtime: Runtimes = None) -> Response:
    asked = [parse_runtime(text) for text in runtime or ()]
    detail = registry.detail(ref)
    adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    base = base_of(registry, detail.version)
    found = [verdict(adapter, one, base) for one in asked] if asked else verdicts(adapter, base)
    return fresh(request, Verdicts(verdicts=tuple(found)))
