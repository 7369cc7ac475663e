"""Libraries that FastAPI imports if they are installed, although this server has no use for them."""

from __future__ import annotations

import sys
from typing import cast


def refuse_old_pydantic() -> None:
    """Prevents `pydantic.v1` from being imported in this process, unless it already was. FastAPI would import
    its 23 modules (2.5 MB) only to find that no route has one of its models.
    """
    modules = cast("dict[str, object]", sys.modules)
    modules.setdefault("pydantic.v1", None)
