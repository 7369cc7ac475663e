"""The routes of all sections."""

from __future__ import annotations

from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.settings import overview
from adaptry_api.pages.settings.issuers import ISSUERS
from adaptry_api.pages.settings.limits import ALL_LIMITS, LIMITS
from adaptry_api.pages.settings.members import MEMBERS
from adaptry_api.pages.settings.people import GROUPS, USERS
from adaptry_api.pages.settings.policies import ADAPTER_POLICIES, POLICIES
from adaptry_api.pages.settings.publishers import PUBLISHERS
from adaptry_api.pages.settings.section import add_sections
from adaptry_api.pages.settings.service_accounts import SERVICE_ACCOUNTS
from adaptry_api.pages.settings.tokens import TOKENS
from adaptry_api.pages.settings.webhooks import WEBHOOK, WEBHOOKS

SECTIONS = (
    TOKENS, MEMBERS, SERVICE_ACCOUNTS, POLICIES, WEBHOOKS, WEBHOOK, LIMITS, ADAPTER_POLICIES, PUBLISHERS,
    USERS, GROUPS, ISSUERS, ALL_LIMITS,
)  # fmt: skip
OVERVIEW = overview.ROUTES
ROUTES = page_router()
add_sections(ROUTES, SECTIONS)
