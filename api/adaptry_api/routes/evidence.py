"""Evidence: measurements of a version. They are appended, and withdrawn with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import Field

from adaptry.core.errors import NotFound
from adaptry.core.evidence.values import MAX_TEXT, MAX_VALUES, EvidenceFile, EvidenceValue
from adaptry.core.manifest import FileEntry
from adaptry.registry import protocol
from adaptry.registry.evidence import (
    EvidenceAddition,
    EvidenceInfo,
    EvidencePart,
    WithdrawalRequest,
    WithdrawalResult,
)
from adaptry.registry.records import Page
from adaptry_api import downloads
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router
from adaptry_api.downloads import file_response
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.route_threads import run_in_own_threads
from adaptry_api.routes.parameters import Cursor, Limit, PathRef

ROUTES = guarded_router(
    f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions/{{selector}}/evidence", "evidence"
)
BY_ID = guarded_router(f"{protocol.PREFIX}/evidence", "evidence")

_TextFilter = Query(max_length=MAX_TEXT)


class EvidenceValueRequest(EvidenceValue, extra="forbid"):
    """One measured number."""


class EvidenceFileRequest(EvidenceFile, extra="forbid"):
    """A results file that was uploaded for the adapter, and the values in it."""

    values: tuple[EvidenceValueRequest, ...] = Field(min_length=1, max_length=MAX_VALUES)


class EvidenceWithdrawalRequest(WithdrawalRequest, extra="forbid"):
    """Why evidence is withdrawn."""


@ROUTES.post("", responses={201: {"model": EvidenceAddition}})
def add_evidence(
    ref: PathRef, body: EvidenceFileRequest, response: Response, registry: IdempotentRegistry
) -> EvidenceAddition:
    """Add the values of a results file to a version.

    Upload the file first, as for a push. The response is 201 if values were added, and 200 if the version has
    all of them already.
    """
    added = registry.evidence.add(ref, body)
    response.status_code = 201 if added.added else 200
    return added


@ROUTES.get("")
def list_evidence(
    ref: PathRef,
    registry: CallersRegistry,
    task: Annotated[str | None, _TextFilter] = None,
    metric: Annotated[str | None, _TextFilter] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[EvidenceInfo]:
    """List the measurements of a version, newest first.

    Logged metrics are in the list, too. Withdrawn evidence has `withdrawn`, with the reason.
    """
    return registry.evidence.list(ref, task=task, metric=metric, cursor=cursor, limit=limit)


@BY_ID.get("/{id}")
def get_evidence(id: int, registry: CallersRegistry) -> EvidenceInfo:
    """Get one measured value."""
    return registry.evidence.get(id)


@BY_ID.get("/{id}/files")
def list_evidence_files(id: int, registry: CallersRegistry) -> tuple[FileEntry, ...]:
    """List the stored files of a value.

    `file` is the results file that it was read from. `samples` has the value of each document.
    """
    return registry.evidence.files(id)


@BY_ID.get("/{id}/files/{part}", response_class=Response, responses=downloads.RESPONSES)
async def download_evidence_file(
    request: Request, id: int, part: EvidencePart, registry: CallersRegistry
) -> Response:
    """Download a stored file of a value, byte for byte."""

    def find() -> FileEntry:
        for entry in registry.evidence.files(id):
            if entry.path == part:
                return entry
        raise NotFound(f"evidence {id} has no stored {part}")

    def read_on(start: int) -> Iterator[bytes]:
        return registry.evidence.read_file(id, part, start)

    entry = await run_in_own_threads("reads", find)
    return await file_response(request, entry, read_on, app_state_of(request).downloads)


@BY_ID.post("/{id}/withdrawal")
def withdraw_evidence(
    id: int, body: EvidenceWithdrawalRequest, registry: IdempotentRegistry
) -> WithdrawalResult:
    """Withdraw evidence, with a reason.

    It stays in the list, marked as withdrawn. With `whole_file`, all values of the same file are withdrawn.
    """
    return registry.evidence.withdraw(id, body)
