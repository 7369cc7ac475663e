"""How values read on pages: times, digests, sizes, numbers, counts and addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup, escape

from adaptry.core.display import escape_controls, format_count, format_number, format_size
from adaptry.core.refs import AdapterName

_JOINERS = "\u200c\u200d"
_JOINER = re.compile(f"([{_JOINERS}])")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME_PART = re.compile(r"[._@](?=.)")
_STEPS = ((60, "s"), (3600, "min"), (86_400, "h"), (86_400 * 30, "d"))
_SIZES = (1, 60, 3600, 86_400)


def relative_time(moment: datetime, now: datetime | None = None) -> str:
    """A time relative to now, such as `3 h ago`; after thirty days, the date."""
    moment = moment.astimezone(UTC)
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    if seconds < 5:
        return "now" if seconds > -60 else f"{moment:%Y-%m-%d %H:%M}"
    for (below, unit), size in zip(_STEPS, _SIZES, strict=True):
        if seconds < below:
            return f"{seconds // size} {unit} ago"
    return f"{moment:%Y-%m-%d}"


def duration(end: datetime, start: datetime) -> str:
    """A duration in whole units: `40 s`, `3 h`, `12 d`."""
    seconds = max(0, int((end - start).total_seconds()))
    for (below, unit), size in zip(_STEPS, _SIZES, strict=True):
        if seconds < below:
            return f"{seconds // size} {unit}"
    return f"{seconds // 86_400} d"


def exact_time(moment: datetime) -> str:
    """A time such as `2026-11-28 16:43:37 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def machine_time(moment: datetime) -> str:
    """The value of a `datetime` attribute."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def short_digest(digest: object) -> str:
    """The first twelve hex digits."""
    return str(digest).removeprefix("sha256:")[:12]


def compact_count(count: int) -> str:
    """`12`, `4.2 k`, `8.0 B`: at most four characters and a unit."""
    amount = float(count)
    for unit in ("", " k", " M", " B"):
        if amount < 999.5 or unit == " B":
            return f"{amount:.0f}{unit}" if not unit or amount >= 99.5 else f"{amount:.1f}{unit}"
        amount /= 1000
    raise AssertionError


def adapter_url(name: AdapterName | str) -> str:
    """The plain address of an adapter's page."""
    return f"/{quote(str(name))}"


def version_url(name: AdapterName | str, number: int) -> str:
    """The page of an adapter at one version."""
    return f"{adapter_url(name)}?version={number}"


def plain_text(value: object) -> str:
    """Untrusted text on one line, with control and direction characters escaped. Joiners are kept, since
    Persian and Indic words and many emoji need them.
    """
    return "".join(part if part in _JOINERS else escape_controls(part) for part in _JOINER.split(str(value)))


def brief_text(value: object) -> str:
    """Like `plain_text`, with numbers as people read them, and digests cut to twelve digits."""
    text = format_number(value) if isinstance(value, float) else plain_text(value)
    return _DIGEST.sub(lambda found: found[0][: len("sha256:") + 12], text)


def breakable_name(name: str) -> Markup:
    """`alias.<wbr>moved`: a line may end after a dot, an underscore or an `@`."""
    return Markup(_NAME_PART.sub(lambda found: f"{found[0]}<wbr>", str(escape(name))))


def pair(value: str) -> tuple[str, str]:
    """A choice whose label is its value."""
    return value, value


FILTERS: Mapping[str, Callable[..., object]] = {
    "ago": relative_time,
    "duration": duration,
    "exact": exact_time,
    "machine": machine_time,
    "digest": short_digest,
    "size": format_size,
    "number": format_number,
    "compact": compact_count,
    "count": format_count,
    "adapter_url": adapter_url,
    "plain": plain_text,
    "brief": brief_text,
    "breakable": breakable_name,
    "pair": pair,
}
