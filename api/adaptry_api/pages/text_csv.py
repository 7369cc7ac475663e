"""Tables as CSV, for spreadsheets. No cell can begin a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime

from starlette.responses import Response

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_file(file: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """A download. Numbers stay numbers; None is an empty cell; times are in ISO 8601."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_cell, columns))
    writer.writerows(map(_cell, row) for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(text.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return value
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
