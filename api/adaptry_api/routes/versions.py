"""Versions: resolving a ref, and details of a version."""

from __future__ import annotations

from functools import partial

from fastapi import Request, Response

from adaptry.core.refs import AdapterName, Ref, parse_selector
from adaptry.registry import protocol
from adaptry.registry.interface import Registry
from adaptry.registry.records import Page, TensorInspection, VersionDetail, VersionInfo
from adaptry_api.auth_policy import CallersRegistry, answered_quickly, app_state_of, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.routes.parameters import Cursor, Limit, Name, PathRef

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions", "versions")
ONE = "/{selector}"


@ROUTES.get("")
def list_versions(
    name: Name, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[VersionInfo]:
    """List an adapter's versions, newest first."""
    return registry.versions.list(name, cursor, limit)


async def _quick_version(request: Request, registry: Registry) -> Response:
    given = request.path_params
    ref = Ref(AdapterName.parse(f"{given['namespace']}/{given['name']}"), parse_selector(given["selector"]))
    return etag_response(
        request, await app_state_of(request).quick_reads.run(partial(registry.versions.get, ref))
    )


@ROUTES.get(ONE, response_model=VersionInfo)
@answered_quickly(_quick_version)
def get_version(request: Request, ref: PathRef, registry: CallersRegistry) -> Response:
    """Get the version that a number, an alias or a digest selects."""
    return etag_response(request, registry.versions.get(ref))


@ROUTES.get(f"{ONE}/detail", response_model=VersionDetail)
def get_version_detail(request: Request, ref: PathRef, registry: CallersRegistry) -> Response:
    """Get everything about a version.

    This includes its manifest, the adapter's properties as read from its files, and the findings of the
    checks.
    """
    return etag_response(request, registry.versions.detail(ref))


@ROUTES.get(f"{ONE}/tensors")
def list_version_tensors(
    ref: PathRef, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[TensorInspection]:
    """List a version's tensors.

    Each tensor comes with the counts of its NaN and infinite elements, and the norm of its finite elements.
    """
    return registry.versions.inspect_tensors(ref, cursor, limit)


@ROUTES.post(f"{ONE}/downloads", status_code=204)
def count_download(ref: PathRef, registry: CallersRegistry) -> None:
    """Count a download of a version.

    Clients that fetch files from a cache or a bucket call this, so that the count stays true.
    """
    registry.versions.count_download(ref)
