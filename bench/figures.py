"""The results of a bench for `table.py`: one line of JSON per row, in the file that `FIGURES` names.

Without `FIGURES`, nothing is written: a bench run by itself prints its results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


def note(row: str, ours: Sequence[float], peer: Sequence[float] = ()) -> None:
    """Notes a row: our values and the peer's, one for each round; the two were measured in turns."""
    if place := os.environ.get("FIGURES"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row, "ours": list(ours), "peer": list(peer)}) + "\n")
