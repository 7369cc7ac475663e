"""Compares two or more versions, possibly of different adapters: their differences and their measurements.

The others are compared with the first version. Everything is read from headers, configs and stored values;
figures that need the weights are a separate part (`compare_weights`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from adaptry.adapters.adapter import open_content
from adaptry.core.errors import CorruptData, Invalid, NotFound, Withdrawn
from adaptry.core.recipe_summary import summarise_recipe
from adaptry.core.refs import Ref
from adaptry.operations.differences import DiffSide, find_differences
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionDetail
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.denials import set_form_action
from adaptry_api.pages.compare_weights import MAX_VERSIONS, WEIGHTS, Refs, submit_measurement
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.metric_comparison import (
    VERDICTS,
    ComparedMetric,
    compare_metrics,
    intervals_of,
)
from adaptry_api.pages.page_responses import render
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.text_csv import csv_file
from adaptry_api.route_threads import run_in_own_threads

ROUTES = page_router()
COMPARE = "/-/compare"
_EVIDENCE = 200


class ComparisonRow(BaseModel):
    """A fact that differs, with its text for each version, in their order."""

    what: str
    values: tuple[str, ...]


class ComparePage(BaseModel):
    """The versions and what differs: in the spec, the config, what was measured, and where they come from.

    `without_config` are versions whose files are withheld from the caller, so their configs are not compared.
    """

    versions: tuple[VersionDetail, ...] = ()
    spec: tuple[ComparisonRow, ...] = ()
    config: tuple[ComparisonRow, ...] = ()
    metrics: tuple[ComparedMetric, ...] = ()
    provenance: tuple[ComparisonRow, ...] = ()
    without_config: tuple[str, ...] = ()

    def verdicts_of(self, place: int) -> list[tuple[int, str, str]]:
        """The verdicts on the version at this position: for each, the number of metrics, its words and its
        tone.
        """
        found = Counter(row.cells[place].verdict for row in self.metrics)
        return [(found[verdict], words, tone) for verdict, words, tone in VERDICTS if found[verdict]]


@ROUTES.get(COMPARE, response_model=None)
def show_comparison(
    request: Request,
    registry: VisitorsRegistry,
    ref: Refs = [],  # noqa: B006
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """Compares the versions that the refs select now."""
    written = _written(ref)
    page = _compare(registry, [Ref.parse(text) for text in written])
    if format == "csv":
        return _csv(page)
    names = {
        "refs": written,
        "address": _address,
        "intervals_of": intervals_of,
        "most": MAX_VERSIONS,
        "weights": f"{WEIGHTS}{_address(written).removeprefix(COMPARE)}",
        "verdicts": {verdict: (words, tone) for verdict, words, tone in VERDICTS},
        "permalink": _address([one.version.revision_ref for one in page.versions]),
    }
    return render(request, "compare.html", page, names)


@ROUTES.post(COMPARE, response_model=None)
async def measure_weights(
    request: Request,
    registry: VisitorsRegistry,
    identity: Visitor,
    ref: Refs = [],  # noqa: B006
) -> Response:
    """Submits the job that computes the missing figures, and shows the page again."""
    do = (await read_form(request)).get("do", "")
    set_form_action(request.scope, do)
    written = _written(ref)
    if do != "measure" or not written:
        raise Invalid("the form names no action of this page; load the page again")
    await run_in_own_threads("writers", partial(submit_measurement, registry, identity, written))
    return RedirectResponse(f"{_address(written)}#weights", 303)


def _written(refs: Sequence[str]) -> list[str]:
    return [text.strip() for text in refs if text.strip()]


def _compare(registry: Registry, refs: Sequence[Ref]) -> ComparePage:
    details = registry.versions.details(refs)
    if len(details) < 2:
        return ComparePage(versions=details)
    sides, withheld = [], []
    for detail, content in zip(details, RevisionContent.of_all(registry, details), strict=True):
        try:
            sides.append(DiffSide.of(open_content(content), detail.version))
        except (NotFound, Withdrawn, CorruptData):
            withheld.append(detail.version.label)
            sides.append(DiffSide(detail.spec, {}, detail.version))
    rows = _rows(sides)
    return ComparePage(
        versions=details,
        spec=tuple(row for row in rows if not row.what.startswith(("config ", "metric "))),
        config=tuple(
            row.model_copy(update={"what": row.what.removeprefix("config ")})
            for row in rows
            if row.what.startswith("config ") and not withheld
        ),
        metrics=compare_metrics(registry.evidence.newest(refs, _EVIDENCE)),
        provenance=tuple(_provenance(details)),
        without_config=tuple(withheld),
    )


def _rows(sides: Sequence[DiffSide]) -> list[ComparisonRow]:
    """The facts in which any version differs from the first, each with its text for every version."""
    first, *others = sides
    found = [{each.what: each for each in find_differences(first, other)} for other in others]
    before = {each.what: each.before for differences in found for each in differences.values()}
    return [
        ComparisonRow(
            what=what,
            values=(text, *(each[what].after if what in each else text for each in found)),
        )
        for what, text in before.items()
    ]


def _provenance(details: Sequence[VersionDetail]) -> Iterator[ComparisonRow]:
    """The differences in their origins."""
    facts = [_origin_of(detail) for detail in details]
    for what in dict.fromkeys(key for each in facts for key in each):
        values = tuple(each.get(what, "") for each in facts)
        if len(set(values)) > 1:
            yield ComparisonRow(what=what, values=values)


def _origin_of(detail: VersionDetail) -> dict[str, str]:
    version, manifest = detail.version, detail.manifest
    return {
        "pushed by": version.created_by,
        "pushed at": f"{version.created_at:%Y-%m-%d %H:%M} UTC",
        "base": f"{version.base_name or ''} {version.base_id.brief if version.base_id else ''}".strip(),
        "base is": version.base_status,
        "parents": ", ".join(parent.brief for parent in manifest.parents),
        "recipe": summarise_recipe(manifest.recipe),
        "forced": detail.forced or "",
        "findings": ", ".join(sorted({found.code for found in detail.report.findings})),
        **{key: _text(value) for key, value in sorted(manifest.provenance.items())},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _csv(page: ComparePage) -> Response:
    """The values of all tables, with a column for each version."""
    labels = [one.version.label for one in page.versions]
    measured = [
        (
            "measured",
            " ".join(filter(None, (row.task, row.metric, row.filter))),
            *(cell.evidence.value if cell.evidence else None for cell in row.cells),
        )
        for row in page.metrics
    ]
    tables = (("spec", page.spec), ("config", page.config), ("provenance", page.provenance))
    differing = [(table, row.what, *row.values) for table, rows in tables for row in rows]
    return csv_file("comparison.csv", ("table", "what", *labels), [*measured, *differing])


def _address(refs: Sequence[Ref | str]) -> str:
    """The page that compares these."""
    return f"{COMPARE}?{urlencode([('ref', str(ref)) for ref in refs])}"
