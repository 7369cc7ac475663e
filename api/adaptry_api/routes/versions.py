"""Versions: resolving a ref, and details of a version."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from adaptry.adapters.weight_statistics import WeightDistance, WeightStatistics
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref, parse_selector
from adaptry.registry import protocol
from adaptry.registry.records import Page, TensorInspection, VersionDetail, VersionInfo
from adaptry.registry.sort_keys import VERSION_SORT_KEYS
from adaptry_api.auth_policy import (
    AnswerInMemory,
    CallersRegistry,
    app_state_of,
    guarded_router,
    with_quick_answer,
)
from adaptry_api.etags import TaggedAnswer, etag_json, etag_response
from adaptry_api.routes.parameters import Cursor, Limit, Name, PathRef, Reverse

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions", "versions")
ONE = "/{selector}"
_SORT = f"The order of the versions: {', '.join(f'`{key}`' for key in VERSION_SORT_KEYS)}."


@ROUTES.get("")
def list_versions(
    name: Name,
    registry: CallersRegistry,
    cursor: Cursor = None,
    limit: Limit = 50,
    sort: Annotated[str, Query(max_length=256, description=_SORT)] = "newest",
    reverse: Reverse = False,
) -> Page[VersionInfo]:
    """List an adapter's versions.

    All orders begin with the newest or with the largest values; versions without a value come last.
    """
    return registry.versions.list(name, cursor, limit, sort=sort, reverse=reverse)


async def _quick_version(request: Request, identity: Identity) -> Response:
    state, path = app_state_of(request), request.scope["path"]
    kept = await state.answers.get(path, identity)
    if kept is not None:
        return kept.response(request)
    given = request.path_params
    name = AdapterName.parse(f"{given['namespace']}/{given['name']}")
    ref, registry = Ref(name, parse_selector(given["selector"])), state.registry(identity)
    read = state.commits.with_commit(lambda: TaggedAnswer(registry.versions.get(ref)), about=ref)
    answer, commit = await state.quick_reads.run_query(read)
    state.answers.put(path, identity, answer, commit)
    return answer.response(request)


def _version_from_memory(request: Request, identity: Identity) -> AnswerInMemory | None:
    state = app_state_of(request)
    answer = state.answers.peek_at(request.scope["path"], identity, state.commits.last_known())
    return AnswerInMemory(answer.response(request)) if answer else None


@ROUTES.get(ONE, response_model=VersionInfo)
@with_quick_answer(_quick_version, immediate=_version_from_memory)
def get_version(request: Request, ref: PathRef, registry: CallersRegistry) -> Response:
    """Get the version that a number, an alias or a digest selects."""
    return etag_response(request, registry.versions.get(ref))


@ROUTES.get(f"{ONE}/detail", response_model=VersionDetail)
def get_version_detail(request: Request, ref: PathRef, registry: CallersRegistry) -> Response:
    """Get everything about a version.

    This includes its manifest, the adapter's properties as read from its files, and the findings of the
    checks.
    """
    return etag_json(request, registry.versions.detail_json(ref))


@ROUTES.get(f"{ONE}/tensors")
def list_version_tensors(
    ref: PathRef, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[TensorInspection]:
    """List a version's tensors.

    Each tensor comes with the counts of its NaN and infinite elements, and the norm of its finite elements.
    """
    return registry.versions.inspect_tensors(ref, cursor, limit)


@ROUTES.get(f"{ONE}/weight-statistics")
def get_weight_statistics(ref: PathRef, registry: CallersRegistry) -> WeightStatistics:
    """Get the statistics of a version's weights.

    For each module: the norm of its update, its largest singular values and its effective rank. A
    `weight-statistics` job computes them once.
    """
    return registry.versions.weight_statistics(ref)


@ROUTES.get(f"{ONE}/weight-distance")
def get_weight_distance(
    ref: PathRef,
    registry: CallersRegistry,
    other: Annotated[str, Query(max_length=512, description="The version to compare with, as a ref.")],
) -> WeightDistance:
    """Get the distance between the weights of two versions.

    For each module: the norm of the difference of the two updates, and the cosine of the angle between them.
    A `weight-statistics` job computes them once.
    """
    return registry.versions.weight_distance(ref, Ref.parse(other))


@ROUTES.post(f"{ONE}/downloads", status_code=204)
def count_download(ref: PathRef, registry: CallersRegistry) -> None:
    """Count a download of a version.

    Clients that fetch files from a cache or a bucket call this, so that the count stays right.
    """
    registry.versions.count_download(ref)
