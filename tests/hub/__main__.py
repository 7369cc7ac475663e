"""`docs/hub-clients.md`: which lines of the checklist each client passes, according to a run.

    python -m tests.hub [--client 1.20] [--line 35] [--write docs/hub-clients.md]

Without `--write`, it prints the result of each line, with the last output of a client that failed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from .checklist_server import serving
from .lines import CLIENTS, pairs
from .page import Found, page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", action="append", choices=[client.name for client in CLIENTS])
    parser.add_argument("--line", action="append", type=int)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as site:
        for client, line in pairs():
            if not client.program or client.name not in (asked.client or [client.name]):
                continue
            if line.number not in (asked.line or [line.number]):
                continue
            outcome = found[client.name, line.number] = site.run(client, line)
            word = "FAILS" if outcome.failure else "cannot" if outcome.cannot else "passes"
            print(f"{client.name:>10} {line.number:>3}  {word:<7}{line.title}", flush=True)
            if outcome.failure and not asked.write:
                print(outcome.failure)
    if asked.write:
        there = {client.name: client.versions() for client in CLIENTS if client.program}
        asked.write.write_text(page(found, there))


if __name__ == "__main__":
    main()
