"""A page on PostgreSQL waits for the database once for each statement: their number is bounded, and does not
grow with what the page shows.
"""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from tests.pages.browser import Browser
from tests.pages.sample_registry import SQL, TONE
from tests.pages.statements import statements_of

from adaptry_api.testing import Server

REFS = (f"{TONE}@1", f"{TONE}@prod", f"{TONE}@5", f"{TONE}@2", f"{SQL}@prod", f"{SQL}@2")
MAX_STATEMENTS = 40
"""Statements of one request."""
PAGES = (
    "/",
    "/?sort=metric.accuracy",
    f"/{TONE}",
    f"/-/adapters/{TONE}/5/fit",
    f"/-/adapters/{TONE}/4/lineage",
    f"/-/adapters/{TONE}/5/promote",
    f"/-/aliases/{TONE}/prod",
    f"/-/combine?{urlencode([('ref', f'{TONE}@4'), ('ref', f'{SQL}@2'), ('method', 'ties')])}",
    "/-/bases",
    "/-/fleet",
    "/-/jobs",
    "/-/activity",
    "/-/settings",
    "/-/settings/tokens",
    "/-/settings/namespaces/acme/members",
    "/-/settings/namespaces/acme/policies",
    "/-/settings/namespaces/acme/webhooks",
    "/-/settings/namespaces/acme/limits",
)


@pytest.mark.parametrize("path", ["/-/compare", "/-/compare/weights"])
@pytest.mark.parametrize("is_member", [False, True], ids=["administrator", "member"])
def test_six_versions_are_compared_with_the_statements_of_two(
    team_on_postgres: Server, path: str, is_member: bool
) -> None:
    token = team_on_postgres.token("cora", "viewer", ("acme",)) if is_member else team_on_postgres.admin
    browser = Browser(team_on_postgres, token)
    two, six = (
        statements_of(browser, f"{path}?{urlencode([('ref', ref) for ref in REFS[:count]])}")
        for count in (2, 6)
    )
    assert len(two) == len(six) <= MAX_STATEMENTS, "\n".join(six)


@pytest.mark.parametrize("address", PAGES)
def test_a_page_reads_the_database_a_bounded_number_of_times(team_on_postgres: Server, address: str) -> None:
    statements = statements_of(Browser(team_on_postgres), address)
    assert 0 < len(statements) <= MAX_STATEMENTS, "\n".join(statements)
