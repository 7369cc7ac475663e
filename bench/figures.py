"""The results of a bench for `table.py`: one line of JSON per row, in the file that `FIGURES` names.

Without `FIGURES`, nothing is written: a bench by itself prints what it found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


def note(row: str, ours: Sequence[float], peer: Sequence[float] = ()) -> None:
    """Notes a row: ours and the peer's, a value for each round, in which they took turns."""
    if place := os.environ.get("FIGURES"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row, "ours": list(ours), "peer": list(peer)}) + "\n")
