"""Versions: what a ref means now, and everything about it."""

from __future__ import annotations

from fastapi import Request, Response

from adaptry.registry import protocol
from adaptry.registry.records import Page, TensorInspection, VersionDetail, VersionInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.routes.parameters import Cursor, Limit, Name, PathRef

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions", "versions")
ONE = "/{selector}"


@ROUTES.get("")
def list_all(
    name: Name, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[VersionInfo]:
    return registry.versions.list(name, cursor, limit)


@ROUTES.get(ONE, response_model=VersionInfo)
def show(request: Request, ref: PathRef, registry: CallersRegistry) -> Response:
    return etag_response(request, registry.versions.get(ref))


@ROUTES.get(f"{ONE}/detail", response_model=VersionDetail)
def detail(request: Request, ref: PathRef, registry: CallersRegistry) -> Response:
    return etag_response(request, registry.versions.detail(ref))


@ROUTES.get(f"{ONE}/tensors")
def inspect_tensors(
    ref: PathRef, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[TensorInspection]:
    """What each tensor holds: NaN and infinite elements, and the norm of the others."""
    return registry.versions.inspect_tensors(ref, cursor, limit)


@ROUTES.post(f"{ONE}/downloads", status_code=204)
def count_download(ref: PathRef, registry: CallersRegistry) -> None:
    registry.versions.count_download(ref)
