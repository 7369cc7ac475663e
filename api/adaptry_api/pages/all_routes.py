"""The routes of pages; `page_routes` lists them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.pages import (
    activity,
    adapter_page,
    adapter_parts,
    alias_history,
    base_pages,
    combine,
    compare,
    compare_weights,
    device,
    facets,
    fleet,
    home,
    jobs,
    promotion_actions,
    promotion_page,
    provider_sign_in,
    reference,
    sign_in,
    static_files,
)
from adaptry_api.pages.settings import routes as settings


def page_routes() -> list[APIRouter]:
    """The pages under `/-/`, which no name can begin with, then those at plain addresses."""
    sign_in_routes = [sign_in.ROUTES, provider_sign_in.ROUTES, device.ROUTES]
    parts = [static_files.ROUTES, *sign_in_routes, adapter_parts.ROUTES, compare.ROUTES, fleet.ROUTES]
    parts += [compare_weights.ROUTES, settings.OVERVIEW, settings.ROUTES, jobs.ROUTES, combine.ROUTES]
    moves = [promotion_page.ROUTES, promotion_actions.ROUTES, alias_history.ROUTES, base_pages.ROUTES]
    return [
        *parts,
        *moves,
        activity.ROUTES,
        reference.ROUTES,
        facets.ROUTES,
        home.ROUTES,
        adapter_page.ROUTES,
    ]
