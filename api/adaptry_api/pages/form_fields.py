"""The fields of a form that a browser sent."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request

from adaptry.core.errors import Invalid, Unsupported
from adaptry_api.bodies import read_body

_FORM = "application/x-www-form-urlencoded"
_MAX_LENGTH = 4096


async def read_form(request: Request, largest: int = _MAX_LENGTH, most_fields: int = 8) -> dict[str, str]:
    """The fields of a form of at most `largest` bytes. Raises `Unsupported` for another body, `Invalid`,
    `TooLarge`.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Unsupported(f"send the form as {_FORM}")
    body = await read_body(request, largest)
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=most_fields)
    except ValueError:
        raise Invalid("the form has too many fields") from None
    return {name: values[0] for name, values in fields.items()}
