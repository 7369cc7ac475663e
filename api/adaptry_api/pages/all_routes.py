"""The routes of pages; `page_routes` lists them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.pages import (
    adapter_page,
    adapter_parts,
    compare,
    device,
    home,
    provider_sign_in,
    sign_in,
    static_files,
)


def page_routes() -> list[APIRouter]:
    """The pages under `/-/`, which no name can begin with, then those at plain addresses."""
    return [
        static_files.ROUTES,
        sign_in.ROUTES,
        provider_sign_in.ROUTES,
        device.ROUTES,
        adapter_parts.ROUTES,
        compare.ROUTES,
        home.ROUTES,
        adapter_page.ROUTES,
    ]
