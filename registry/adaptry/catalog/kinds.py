"""A kind of database: all that `Catalog` has to know of the one it stands on.

SQLite and PostgreSQL are the two there are, each in a module of its own; tables, statements and migrations are
the same for both. A kind promises that one writer is at work at a time, in all processes, and that a reader sees
one moment and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from adaptry.errors import AdaptryError

Block = Callable[[], AbstractContextManager[object]]
"""Makes what surrounds a piece of work."""


@dataclass(frozen=True, slots=True)
class Database:
    """An opened database.

    `readers` and `writers` give connections whose transactions are what they say, `noters` those that write what a power
    cut may undo; `reading` and `writing` surround them, `opening` surrounds the check of the schema and its migration, after which `settle` looks at the new one.
    `meaning` tells what a driver's error means, and is None for a mistake of ours.
    """

    readers: Engine
    writers: Engine
    noters: Engine
    reading: Block
    writing: Block
    opening: Block
    settle: Callable[[Connection], None]
    meaning: Callable[[BaseException], AdaptryError | None]
