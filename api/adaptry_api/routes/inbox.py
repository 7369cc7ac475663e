"""Posted results: attached to the version that they state, or kept apart until they are attached."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Path, Response

from adaptry.core.errors import Invalid
from adaptry.core.refs import Ref
from adaptry.registry import protocol
from adaptry.registry.evidence import EvidenceAddition
from adaptry.registry.inbox import AttachRequest, KeptResults, PostedFile, PostRequest
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

OF_NAMESPACE = guarded_router(f"{protocol.PREFIX}/namespaces/{{namespace}}/results", "evidence")
BY_ID = guarded_router(f"{protocol.PREFIX}/results", "evidence")
Namespace = Annotated[str, Path(max_length=96)]
Id = Annotated[int, Path(ge=1, lt=2**63)]


@OF_NAMESPACE.post("", status_code=201)
def post_results(namespace: Namespace, body: PostRequest, registry: CallersRegistry) -> PostedFile:
    """Post a file that lm-eval wrote.

    If it states the version that was measured, and the caller may add evidence to it, it becomes evidence of
    that version. Otherwise it is kept in the inbox, with a `reason`. lm-eval itself posts over the Hub
    protocol, to the dataset `lm-eval-results` or `lm-eval-results-private` of the namespace.
    """
    try:
        data = base64.b64decode(body.content, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("content is not base64") from None
    return registry.inbox.post(namespace, body.path, data)


@OF_NAMESPACE.get("")
def list_kept_results(
    namespace: Namespace, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[KeptResults]:
    """List the results in the inbox, newest first.

    Holders of `evidence.add` in the namespace see all of them, others those that they posted.
    """
    return registry.inbox.list(namespace, cursor, limit)


@OF_NAMESPACE.get("/own")
def list_posted_files(namespace: Namespace, registry: CallersRegistry) -> tuple[PostedFile, ...]:
    """List the files that the caller posted, newest first.

    Those that became evidence are listed for a day.
    """
    return registry.inbox.posted(namespace)


@BY_ID.get("/{id}")
def get_kept_results(id: Id, registry: CallersRegistry) -> KeptResults:
    """Get results in the inbox."""
    return registry.inbox.get(id)


@BY_ID.get("/{id}/file", response_class=Response)
def download_posted_results(id: Id, registry: CallersRegistry) -> Response:
    """Download a posted results file, byte for byte."""
    return Response(registry.inbox.read(id), media_type="application/json")


@BY_ID.post("/{id}/attachment")
def attach_results(id: Id, body: AttachRequest, registry: CallersRegistry) -> EvidenceAddition:
    """Attach results in the inbox to the version that was measured.

    It requires `evidence.add` on the adapter. The samples files of the same run are attached, too.
    """
    return registry.inbox.attach(id, Ref.parse(body.ref))


@BY_ID.delete("/{id}", status_code=204)
def discard_results(id: Id, registry: CallersRegistry) -> None:
    """Delete results in the inbox, with their samples."""
    registry.inbox.discard(id)
