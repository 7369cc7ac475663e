"""Real, unmodified Hub clients with a real server: each client runs each line of the checklist.

Each client is a process in a separate environment, which `make environments` creates; the newest client is
that of these tests, and is fast enough to run all lines. `python -m tests.hub --write docs/hub-clients.md`
runs the same and writes the page.
"""

from __future__ import annotations

import pytest

from .checklist_server import Site
from .lines import Client, Line, pairs


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
