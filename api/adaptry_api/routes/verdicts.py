"""Verdicts of runtimes on a version, computed on request from its headers and config."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel

from adaptry.adapters.adapter import open_content
from adaptry.checks.runtimes import RuntimeVerdict, check_all_runtimes, check_runtime, parse_runtime
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry import protocol
from adaptry.registry.bases import base_record_or_none
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.routes.parameters import PathRef

ROUTES = guarded_router(
    f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions/{{selector}}/verdicts", "versions"
)

Runtimes = Annotated[
    list[str] | None,
    Query(
        max_length=32,
        description=(
            "Such as vllm@0.33,max_lora_rank=64. Default: every engine, at the version its rules follow."
        ),
    ),
]


class RuntimeVerdicts(BaseModel):
    """One verdict for each requested runtime, in the order of the request."""

    verdicts: tuple[RuntimeVerdict, ...]


@ROUTES.get("", response_model=RuntimeVerdicts)
def get_runtime_verdicts(
    request: Request, ref: PathRef, registry: CallersRegistry, runtime: Runtimes = None
) -> Response:
    """Get the verdict of each inference engine on a version.

    A verdict is whether the engine serves the adapter as it was trained, serves it changed, or refuses it,
    and why. The server computes verdicts from the files' headers and the config; no engine runs.
    """
    runtimes = [parse_runtime(text) for text in runtime or ()]
    detail = registry.versions.detail(ref)
    adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    base = base_record_or_none(registry.bases, detail.version)
    found = (
        [check_runtime(adapter, one, base) for one in runtimes]
        if runtimes
        else check_all_runtimes(adapter, base)
    )
    return etag_response(request, RuntimeVerdicts(verdicts=tuple(found)))
