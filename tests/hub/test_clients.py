"""Real clients of the Hub, unmodified, against a real server: each line of the checklist, by each client.

A client is a process in an environment of its own, which `make environments` makes; the newest one is that of
these tests, and quick enough for all of them. `python -m tests.hub --write docs/hub-clients.md` runs the same
and makes the page.
"""

from __future__ import annotations

import pytest

from .lines import Client, Line, pairs
from .running import Site


def cases() -> list[object]:
    found = []
    for client, line in pairs():
        missing = (
            f"no environment {client.environment or client.name}: `make environments` or `make test` makes it"
        )
        marks = [pytest.mark.skipif(not client.program, reason=missing)]
        if line.slow or not client.is_quick:
            marks.append(pytest.mark.heavy)
        found.append(pytest.param(client, line, marks=marks, id=f"{client.name}-{line.number}"))
    return found


@pytest.mark.parametrize(("client", "line"), cases())
def test_a_client_gets_what_it_expects(client: Client, line: Line, site: Site) -> None:
    outcome = site.run(client, line)
    if outcome.cannot:
        pytest.skip(f"{client.title or client.name}: {outcome.cannot}")
    if outcome.failure:
        pytest.fail(f"{line.title}\n{outcome.failure}", pytrace=False)
