"""Libraries that FastAPI imports if they are installed, although this server has no use for them."""

from __future__ import annotations

import sys
from typing import cast


def refuse_old_pydantic() -> None:
    """Makes `pydantic.v1` impossible to import in this process, unless it was imported. FastAPI would import
    its 23 modules (2.5 MB) to find out that no route has a model of it.
    """
    modules = cast("dict[str, object]", sys.modules)
    modules.setdefault("pydantic.v1", None)
