"""The page of a run: two tables of lines by clients, and the reason for each line that is not passed."""

from __future__ import annotations

from collections.abc import Mapping

from .checklist_server import Outcome
from .lines import CLIENTS, LINES, Client, Line

Found = Mapping[tuple[str, int], Outcome]
"""By client's name and line's number."""

_HEAD = """# Clients of the Hub protocol

This page shows which versions of which Hub clients work with an Adaptry server. To generate it,
`python -m tests.hub --write docs/hub-clients.md` starts `adaptry serve`, runs unmodified clients, each in its
own environment, as their documentation describes, and checks the results. The heavy tests run the same
checks; those of the newest client also run in the quick tests. [Use with…](use-with.md) explains how to set
up a client.

`✓`: works as the client expects. `–`: this version of the client cannot do it on any server. `✗`: fails.

"""
_TABLES = (
    ("huggingface_hub and the `hf` command", ("hub", "command")),
    ("PEFT, transformers, diffusers", ("peft", "diffusers")),
    ("JavaScript", ("javascript",)),
)
_LEFT_OUT = "\n## Left out\n\n"
_NOTES = "\n## Notes\n\n"


def page(found: Found, versions: Mapping[str, Mapping[str, str]]) -> str:
    """The whole page. `versions`: the versions of each client's packages, by the client's name."""
    notes: list[str] = []
    text = _HEAD
    for title, families in _TABLES:
        clients = [each for each in CLIENTS if set(each.families) <= set(families)]
        lines = [each for each in LINES if each.family in families and not each.left_out]
        text += f"## {title}\n\n" + _row(
            "", *(_client(each, versions.get(each.name, {})) for each in clients)
        )
        text += _row(*["---"] * (len(clients) + 1))
        for line in lines:
            cells = (_cell(found.get((each.name, line.number)), each, line, notes) for each in clients)
            text += _row(f"{line.number}. {line.title}", *cells)
        text += "\n"
    text = text.rstrip("\n") + "\n" + _LEFT_OUT
    text += "".join(f"* {line.number}. {line.title}: {line.left_out}.\n" for line in LINES if line.left_out)
    if notes:
        text += _NOTES + "".join(f"{number}. {note}\n" for number, note in enumerate(notes, 1))
    return text


def _client(client: Client, versions: Mapping[str, str]) -> str:
    named = ", ".join(f"{package} {version}" for package, version in versions.items()) or client.name
    return f"{named}, {client.title}" if client.title else named


def _cell(outcome: Outcome | None, client: Client, line: Line, notes: list[str]) -> str:
    if outcome is None:
        return "" if line.family in client.families else " "
    if outcome.failure:
        return "✗"
    if not outcome.cannot:
        return "✓"
    if outcome.cannot not in notes:
        notes.append(outcome.cannot)
    return f"– ({notes.index(outcome.cannot) + 1})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"
