"""The routes of the Hub protocol, one file per noun; `hub_routes` is the table of them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.hub import validating, whoami


def hub_routes() -> list[APIRouter]:
    """What stands at the root of the host, by the addresses that the Hub's clients know."""
    return [whoami.ROUTES, validating.ROUTES]
