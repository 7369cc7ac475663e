"""The weights of compared versions: norms and distances by layer and module, spectra, effective ranks.

A server never computes with weights. It shows the figures that a `weight-statistics` job stored, and offers
that job if some are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, cast
from urllib.parse import urlencode

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.adapters.adapter import open_content
from adaptry.adapters.methods.measurable import unmeasurable_reason
from adaptry.adapters.weight_statistics import ModulePairDistance, WeightDistance, WeightStatistics
from adaptry.core.errors import CorruptData, NotFound, Withdrawn
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.registry.records import VersionDetail
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.pages.live import LivePart, stream_part
from adaptry_api.pages.page_responses import render_part
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.weight_figures import (
    SCALE,
    SCALE_SIZE,
    SPECTRUM_BASE,
    SPECTRUM_HEIGHT,
    SPECTRUM_WIDTH,
    UNRELATED,
    Axes,
    HeatMap,
    KindSpectrum,
    distances_by_place,
    find_axes,
    heat_map,
    norms_by_place,
    spectra,
)

ROUTES = page_router()
WEIGHTS = "/-/compare/weights"
KIND = "weight-statistics"
MAX_VERSIONS = 6
"""Maximum number of versions that one page compares."""
_EXAMINED_JOBS = 50
_POLL_SECONDS = 2.0
Refs = Annotated[list[str], Query(max_length=MAX_VERSIONS)]


class MeasuredVersion(BaseModel):
    """A version's statistics, and its distance from the first. `reason` is why it cannot be measured."""

    label: str
    statistics: WeightStatistics | None = None
    distance: WeightDistance | None = None
    reason: str = ""


class WeightsPart(BaseModel):
    """The versions; the versions to measure, if something is missing; and the newest job that measures
    them.
    """

    scale: ClassVar = SCALE
    scale_size: ClassVar = SCALE_SIZE
    spectrum_size: ClassVar = (SPECTRUM_WIDTH, SPECTRUM_HEIGHT)
    spectrum_base: ClassVar = SPECTRUM_BASE

    versions: tuple[MeasuredVersion, ...]
    to_measure: tuple[str, ...]
    job: JobInfo | None
    may_measure: bool

    @property
    def is_waiting(self) -> bool:
        """Whether a running job will add figures to the page."""
        return bool(self.to_measure) and self.job is not None and self.job.is_open

    @property
    def command(self) -> str:
        """The command that submits the job."""
        return " ".join([f"adaptry jobs submit {KIND}", *(f"versions={label}" for label in self.to_measure)])

    @property
    def axes(self) -> Axes:
        return find_axes(one.statistics for one in self.versions if one.statistics)

    @property
    def norm_maps(self) -> Iterator[tuple[str, HeatMap]]:
        """A map for each measured version, all on one scale."""
        axes = self.axes
        norms = {one.label: norms_by_place(one.statistics) for one in self.versions if one.statistics}
        high = max((value for found in norms.values() for value in found.values()), default=0.0)
        return ((label, heat_map(axes, dict(found), high)) for label, found in norms.items())

    @property
    def distance_maps(self) -> Iterator[tuple[str, HeatMap]]:
        """A map for each version that was compared with the first."""
        axes, first = self.axes, self.versions[0].statistics
        for one in self.versions[1:]:
            if first and one.distance:
                yield one.label, heat_map(axes, distances_by_place(first, one.distance), UNRELATED)

    @property
    def has_blank(self) -> bool:
        """Whether a map has a place without a value."""
        maps = [one for _, one in (*self.norm_maps, *self.distance_maps)]
        return any(value is None for one in maps for row in one.values for value in row)

    @property
    def spectra(self) -> Sequence[KindSpectrum]:
        return spectra(self.axes, [one.statistics for one in self.versions])


@ROUTES.get(WEIGHTS, response_model=None)
def show_weights(request: Request, registry: VisitorsRegistry, identity: Visitor, ref: Refs) -> Response:
    """The figures that are stored."""
    names = {"address": f"{WEIGHTS}?{_query(ref)}", "live": f"{WEIGHTS}/live?{_query(ref)}"}
    part = read_weights(registry, identity, ref)
    return render_part(request, "Weights", "weights.html", part, names, is_padded=False)


@ROUTES.get(f"{WEIGHTS}/live", response_model=None)
async def stream_weights(request: Request, registry: VisitorsRegistry, ref: Refs) -> Response:
    """Streams the part each time it has changed, until no job is open."""
    part = LivePart(
        "weights_part.html",
        lambda registry, identity: read_weights(registry, identity, ref),
        _POLL_SECONDS,
        lambda value: not cast(WeightsPart, value).is_waiting,
    )
    return stream_part(request, part)


def read_weights(registry: Registry, identity: Identity, refs: Sequence[str]) -> WeightsPart:
    """Reads the stored figures. Raises the registry's errors for versions that the visitor may not read."""
    details = registry.versions.details([Ref.parse(text.strip()) for text in refs])
    found = _measured(registry, details)
    to_measure = _to_measure(found)
    return WeightsPart(
        versions=found,
        to_measure=to_measure,
        job=_newest_job(registry, to_measure) if to_measure else None,
        may_measure=identity.may_in("job.run", details[0].version.name.namespace),
    )


def submit_measurement(registry: Registry, identity: Identity, refs: Sequence[str]) -> JobInfo | None:
    """Submits the job for the missing figures; None if none are missing. Raises `PermissionDenied`."""
    part = read_weights(registry, identity, refs)
    if not part.to_measure:
        return None
    return registry.jobs.submit(JobOrder(kind=KIND, task=_task(part.to_measure)))


def _to_measure(found: Sequence[MeasuredVersion]) -> tuple[str, ...]:
    """The first version and those that lack a figure; none if nothing is missing that can be measured."""
    first, *others = found
    lacking = [one for one in others if not one.reason and (one.statistics is None or one.distance is None)]
    if first.reason:
        lacking = [one for one in lacking if one.statistics is None]  # has no distances
    elif lacking or first.statistics is None:
        lacking = [first, *lacking]
    return tuple(dict.fromkeys(one.label for one in lacking))


def _measured(registry: Registry, details: Sequence[VersionDetail]) -> tuple[MeasuredVersion, ...]:
    first = details[0].version
    stored = registry.versions.measured_weights([detail.version.revision_ref for detail in details])
    without = [detail for detail, found in zip(details, stored, strict=True) if found.statistics is None]
    reasons = _reasons(registry, {detail.version.label: detail for detail in without})
    result: list[MeasuredVersion] = []
    for version, found in zip((detail.version for detail in details), stored, strict=True):
        distance = found.distance if found.statistics and stored[0].statistics else None
        if found.statistics and version.digest == first.digest:
            distance = _no_distance(found.statistics)
        result.append(
            MeasuredVersion(
                label=version.label,
                statistics=found.statistics,
                distance=distance,
                reason=reasons.get(version.label, ""),
            )
        )
    return tuple(result)


def _no_distance(found: WeightStatistics) -> WeightDistance:
    """The distance of a version from itself."""
    modules = tuple(
        ModulePairDistance(module=one.module, distance=0.0, cosine=1.0 if one.norm else None)
        for one in found.modules
    )
    return WeightDistance(distance=0.0, cosine=1.0 if found.norm else None, modules=modules)


def _reasons(registry: Registry, details: Mapping[str, VersionDetail]) -> dict[str, str]:
    """Why versions cannot be measured, by their labels: the end of a sentence that begins with the label; ""
    for a version that can be.
    """
    contents = RevisionContent.of_all(registry, tuple(details.values())) if details else []
    return {
        label: _reason(detail, content)
        for (label, detail), content in zip(details.items(), contents, strict=True)
    }


def _reason(detail: VersionDetail, content: RevisionContent) -> str:
    if not detail.spec.modules:
        return f"is {detail.spec.method}, which changes no weights of the model"
    try:
        adapter = open_content(content)
    except (NotFound, Withdrawn, CorruptData):
        return "cannot be measured, because its files are withheld"
    version = detail.version
    is_known = version.base_id is not None and version.base_status == "verified"
    return unmeasurable_reason(adapter, is_base_known=is_known) or ""


def _newest_job(registry: Registry, labels: Sequence[str]) -> JobInfo | None:
    """The newest job for these versions among the last jobs, unless it was cancelled."""
    jobs = registry.jobs.list(None, None, _EXAMINED_JOBS).items
    same = (job for job in jobs if job.kind == KIND and job.task == _task(labels))
    return next((job for job in same if job.state != "cancelled"), None)


def _task(labels: Sequence[str]) -> Mapping[str, list[str]]:
    return {"versions": list(labels)}


def _query(refs: Sequence[str]) -> str:
    return urlencode([("ref", text) for text in refs])
