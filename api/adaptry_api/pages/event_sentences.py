"""Events as sentences for people, and the most recent ones."""

from __future__ import annotations

from collections.abc import Iterable

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.events import Events
from adaptry.registry.records import Event

_LOOKED_BACK = 200
_ROUTINE = frozenset({"adapter.created", "metrics.logged", "evidence.added", "commit.created"})
"""Kinds of events that only accompany a push."""


@dataclass(frozen=True, slots=True)
class EventSentence:
    """An event in words: a verb, its object, details, and the tone that a page shows it in."""

    verb: str
    about: str = ""
    more: str = ""
    tone: str = "plain"


def recent_events(events: Events, maximum: int) -> tuple[Event, ...]:
    """The last notable events that the caller may read, newest first, among the registry's last few
    hundred.
    """
    newest = events.read(None, 1).seq
    found = events.read(max(0, newest - _LOOKED_BACK), _LOOKED_BACK).items
    return notable_events(reversed(found))[:maximum]


def notable_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events without those that only accompany a push."""
    return tuple(event for event in events if event.kind not in _ROUTINE)


def sentence_of(event: Event) -> EventSentence:
    """An event in words; its author, time and adapter are shown beside it."""
    detail = event.detail
    match event.kind.split("."):
        case ["version", "pushed"]:
            return EventSentence("pushed", _version(event), _reason("forced", detail.get("forced")))
        case ["version", "restored"]:
            return EventSentence("restored", _version(event), detail.get("reason", ""), "live")
        case ["version", state] if "was" in detail:
            tone = "warn" if state in ("deprecated", "yanked") else "bad"
            return EventSentence(state, _version(event), detail.get("reason", ""), tone)
        case ["version", what]:
            verb = {"bound": "named the base of", "rechecked": "checked again"}.get(what, what)
            return EventSentence(verb, _version(event), detail.get("base", ""))
        case ["alias", "moved"]:
            was = detail.get("was_number")
            came = f"from version {was}" if was else "for the first time"
            return EventSentence(f"moved {detail.get('alias', 'an alias')} to", _version(event), came, "live")
        case ["alias", "removed"]:
            return EventSentence("removed the alias", detail.get("alias", ""), tone="warn")
        case ["rollout", what]:
            about = f"{detail.get('alias', '')} to {_version(event)}"
            return EventSentence(f"{what} a rollout of", about, _percent(detail), _rollout_tone(what))
        case ["metrics", "logged"]:
            values = ", ".join(f"{name} {value}" for name, value in detail.items())
            return EventSentence("logged metrics of", _version(event), values)
        case ["evidence", what]:
            return EventSentence(f"{what} evidence of", _version(event), detail.get("reason", ""))
        case ["adapter", "renamed"]:
            return EventSentence("renamed it from", detail.get("was", ""))
        case ["adapter", what]:
            return EventSentence(f"{what} the adapter")
        case ["worker", what]:
            return EventSentence(f"{what}: worker", detail.get("worker", ""), detail.get("reason", ""))
        case _:
            verb = event.kind.replace(".", " ")
            return EventSentence(verb, _version(event) if event.number else "", detail.get("reason", ""))


def _version(event: Event) -> str:
    return f"version {event.number}" if event.number else ""


def _reason(word: str, text: str | None) -> str:
    return f"{word}: {text}" if text else ""


def _percent(detail: dict[str, str]) -> str:
    return f"{detail['percent']} % of workers" if "percent" in detail else ""


def _rollout_tone(what: str) -> str:
    return {"finished": "live", "stopped": "bad", "aborted": "warn"}.get(what, "plain")
