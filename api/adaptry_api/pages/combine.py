"""Combining adapters: choose versions and a method, see where they overlap, and run the recipe as a job.

The page shows at once what can be read from headers: the modules that the versions share, with their ranks.
Sign conflicts, shared subspaces and the plan need the weights, which a server does not read: a `preview` job
computes them, and the page offers that job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import AdaptryError, Invalid
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.preview import CombinationPreview
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.registry.job_types.tasks import combine_methods, parse_task
from adaptry.registry.records import VersionDetail, VersionInfo
from adaptry_api.auth_policy import VisitorsRegistry
from adaptry_api.denials import set_denial_reason, set_form_action
from adaptry_api.errors import status_of
from adaptry_api.pages.combine_form import MAX_INPUTS, CombineForm, recipe_yaml
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.jobs import job_address
from adaptry_api.pages.page_responses import render, wants_html
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.renamed_addresses import address_after_renames
from adaptry_api.pages.text_csv import csv_file
from adaptry_api.route_threads import run_in_own_threads

ROUTES = page_router()
COMBINE = "/-/combine"
_EXAMINED_JOBS = 50
_MAX_NAMES = 100
_MAX_RANKS = 8
_SUFFIX = "-combined"
_MAX_NAME = 96  # characters of an adapter's name in its namespace
_KINDS = {"preview": "preview", "run": "combine"}
"""The job that each button submits."""


class SharedModules(BaseModel):
    """Modules with one name; for each version, in how many layers it changes them, and the ranks."""

    name: str
    counts: tuple[int, ...]
    ranks: tuple[tuple[int, ...], ...]
    shared: int


class CombinePage(BaseModel):
    """The versions, their modules as read from headers, the recipe as a job's fields and as YAML, and the
    result of a finished `preview` job, if any. `problem` describes an error in the recipe.
    """

    versions: tuple[VersionInfo, ...] = ()
    modules: tuple[SharedModules, ...] = ()
    bases: tuple[str, ...] = ()
    task: dict[str, object] | None = None
    recipe: str | None = None
    preview: CombinationPreview | None = None
    preview_job: JobInfo | None = None
    problem: str = ""


@ROUTES.get(COMBINE, response_model=None)
def show_combination(
    request: Request,
    registry: VisitorsRegistry,
    preview: Annotated[str, Query(max_length=64)] = "",
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """Shows the recipe in the page's query."""
    form = CombineForm.of(request.query_params)
    page = _combination(registry, form, preview)
    if format == "csv":
        return _csv(page)
    if page.problem and not page.versions and (moved := address_after_renames(request, registry)):
        return RedirectResponse(moved, 307)
    return _show(request, form, page, 400 if page.problem else 200)


@ROUTES.post(COMBINE, response_model=None)
async def submit_combination(request: Request, registry: VisitorsRegistry) -> Response:
    """Submits the recipe in the page's query: as a preview, or to create the version."""
    do = (await read_form(request)).get("do", "")
    set_form_action(request.scope, do)
    return await run_in_own_threads("writers", partial(_submit, request, registry, do))


def _submit(request: Request, registry: Registry, do: str) -> Response:
    if do not in _KINDS:
        raise Invalid("the form names no action of this page; reload the page")
    form = CombineForm.of(request.query_params)
    page = _combination(registry, form, "")
    if page.problem or page.task is None:
        page = page if page.problem else page.model_copy(update={"problem": "choose two adapters first"})
        return _show(request, form, page, 400)
    try:
        job = registry.jobs.submit(JobOrder(kind=_KINDS[do], task=page.task))
    except AdaptryError as error:
        if not wants_html(request):
            raise
        set_denial_reason(request.scope, error)
        page = page.model_copy(update={"problem": error.public_message})
        return _show(request, form, page, status_of(error))
    following = form.address(COMBINE, preview=job.id) if do == "preview" else job_address(job.id)
    return RedirectResponse(following, 303)


def _show(request: Request, form: CombineForm, page: CombinePage, status: int) -> Response:
    methods = combine_methods()
    names = {
        "form": form,
        "methods": methods,
        "choice": next((one for one in methods if one.name == form.method), methods[0]),
        "most": MAX_INPUTS,
        "here": lambda **changes: form.address(COMBINE, **changes),
        "permalink": _permalink(form, page),
    }
    return render(request, "combine.html", page, names, status)


def _combination(registry: Registry, form: CombineForm, preview: str) -> CombinePage:
    """The data of the page. Raises the registry's errors for a job that the visitor may not see."""
    try:
        details = [registry.versions.detail(Ref.parse(text)) for text in form.refs]
    except AdaptryError as error:
        return CombinePage(problem=error.public_message)
    versions = tuple(one.version for one in details)
    page = CombinePage(
        versions=versions,
        modules=tuple(_shared_modules(details)) if len(details) > 1 else (),
        bases=tuple(dict.fromkeys(one.base_name or str(one.base_id or "unknown") for one in versions)),
    )
    if len(versions) < 2:
        return page
    try:
        task = form.task([one.label for one in versions], form.to or _result_name(versions[0].name))
        parse_task("combine", task)
    except (Invalid, ValidationError) as error:
        message = error.public_message if isinstance(error, AdaptryError) else str(error)
        return page.model_copy(update={"problem": message.removeprefix("combine: ")})
    job = _preview_job(registry, task, preview)
    found = CombinationPreview.model_validate(job.result) if job and job.result else None
    more = {"task": task, "recipe": recipe_yaml(task), "preview_job": job, "preview": found}
    return page.model_copy(update=more)


def _result_name(first: AdapterName) -> str:
    """A name for the result if the visitor chose none: that of the first input, cut if it is too long."""
    return f"{first.namespace}/{first.name[: _MAX_NAME - len(_SUFFIX)].rstrip('.-')}{_SUFFIX}"


def _csv(page: CombinePage) -> Response:
    """The table of modules. Raises `Invalid` for a wrong recipe."""
    if page.problem:
        raise Invalid(page.problem)
    labels = [one.label for one in page.versions]
    columns = [f"{label} {figure}" for label in labels for figure in ("layers", "ranks")]
    rows = (
        (
            one.name,
            one.shared,
            *(
                cell
                for count, ranks in zip(one.counts, one.ranks, strict=True)
                for cell in (count, " ".join(map(str, ranks)))
            ),
        )
        for one in page.modules
    )
    return csv_file("combination.csv", ("module", "shared", *columns), rows)


def _shared_modules(details: Sequence[VersionDetail]) -> Iterator[SharedModules]:
    """One row for modules with the same last part of their names."""
    found: dict[str, dict[str, list[int | None]]] = {}
    for place, one in enumerate(details):
        for module in one.spec.modules:
            paths = found.setdefault(module.path.rpartition(".")[2], {})
            paths.setdefault(module.path, [None] * len(details))[place] = module.rank
    for name, paths in sorted(found.items())[:_MAX_NAMES]:
        columns = [
            [rank for rank in column if rank is not None] for column in zip(*paths.values(), strict=True)
        ]
        yield SharedModules(
            name=name,
            counts=tuple(map(len, columns)),
            ranks=tuple(tuple(sorted(set(column))[:_MAX_RANKS]) for column in columns),
            shared=sum(None not in ranks for ranks in paths.values()),
        )


def _preview_job(registry: Registry, task: Mapping[str, object], id: str) -> JobInfo | None:
    """The job of the address; else the newest preview of this recipe, among the last jobs."""
    parsed = parse_task("preview", task)
    found = (registry.jobs.get(id),) if id else registry.jobs.list(None, None, _EXAMINED_JOBS).items
    same = (one for one in found if one.kind == "preview" and parse_task("preview", one.task) == parsed)
    return next((one for one in same if one.state != "cancelled"), None)


def _permalink(form: CombineForm, page: CombinePage) -> str:
    """The address with exact versions, which stay the same when aliases move."""
    if len(page.versions) != len(form.refs):
        return form.address(COMBINE)
    labels = tuple(one.label for one in page.versions)
    exact = CombineForm(
        labels, form.weights, form.method, form.parameters, form.rank, form.to, form.is_uniform
    )
    return exact.address(COMBINE)
