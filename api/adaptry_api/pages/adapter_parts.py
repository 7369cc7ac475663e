"""Parts of an adapter's page that are loaded when they come into view: fit to engines, lineage, images."""

from __future__ import annotations

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.adapters.adapter import open_content
from adaptry.adapters.images import is_image
from adaptry.checks.runtimes import ENGINES, RuntimeVerdict, check_all_runtimes
from adaptry.core.errors import NotFound
from adaptry.operations.lineage import LineageNode, ancestor_tree, descendant_tree
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.bases import base_record_or_none
from adaptry_api.auth_policy import VisitorsRegistry
from adaptry_api.pages.adapter_addresses import VERSION_ADDRESS, NumberedRef
from adaptry_api.pages.lineage_graph import lineage_graph
from adaptry_api.pages.page_responses import render_part
from adaptry_api.pages.page_routes import page_router
from adaptry_api.route_threads import run_in_own_threads

ROUTES = page_router()
_MAX_RELATIVES = 30
_IMAGE_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}


class FitPart(BaseModel):
    """Each engine's verdict on the version."""

    ref: str
    verdicts: tuple[RuntimeVerdict, ...]


class LineagePart(BaseModel):
    """The version with its ancestors, and with its descendants."""

    ref: str
    ancestors: LineageNode
    descendants: LineageNode


@ROUTES.get(f"{VERSION_ADDRESS}/fit", response_model=None)
def show_fit(request: Request, ref: NumberedRef, registry: VisitorsRegistry) -> Response:
    """The verdict of every engine, with the reason and the command that repairs it."""
    detail = registry.versions.detail(ref)
    adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    base = base_record_or_none(registry.bases, detail.version)
    part = FitPart(ref=str(ref), verdicts=tuple(check_all_runtimes(adapter, base)))
    titles = {engine.name: engine.title for engine in ENGINES.values()}
    return render_part(request, "Engines", "fit.html", part, {"titles": titles, "has_base": base is not None})


@ROUTES.get(f"{VERSION_ADDRESS}/lineage", response_model=None)
def show_lineage(request: Request, ref: NumberedRef, registry: VisitorsRegistry) -> Response:
    """What the version was made from, and what was made from it."""
    part = LineagePart(
        ref=str(ref),
        ancestors=ancestor_tree(registry, ref, _MAX_RELATIVES),
        descendants=descendant_tree(registry, ref, _MAX_RELATIVES),
    )
    return render_part(
        request, "Lineage", "lineage.html", part, {"graph": lineage_graph(part.ancestors, part.descendants)}
    )


@ROUTES.get(f"{VERSION_ADDRESS}/images/{{path:path}}", response_model=None)
async def show_image(ref: NumberedRef, path: str, registry: VisitorsRegistry) -> Response:
    """An image of the README. Other files are downloaded, never shown: see the REST interface."""

    def read() -> bytes:
        version = registry.versions.get(ref)
        if not is_image(path):
            raise NotFound(f"{ref} has no image {path[:200]!a}")
        return b"".join(registry.files.read(version.name, version.digest, path))

    kind = _IMAGE_TYPES[path.rpartition(".")[2].lower()] if is_image(path) else ""
    content = await run_in_own_threads("reads", read)
    return Response(content, headers={"Cache-Control": "private, max-age=3600"}, media_type=kind)
