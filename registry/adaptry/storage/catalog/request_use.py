"""Requests that names sent, as the processes of a registry share them (`RequestLimits` says when).

A row says when all requests of a name are paid for, by the database's clock: the theoretical arrival time of
the generic cell rate algorithm. A charge moves it forward, from the time of the first request that it is for.
All charges of a round are one statement. It takes no lock of the catalog, and waits neither for the disk nor
for the catalog's writers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from adaptry.core.quotas import QuotaSubject

MAX_BATCH = 500
"""Charges in one round at most."""
MAX_DEBT_SECONDS = 120.0
"""Seconds that a name's requests are paid for in advance at most, whatever was charged: its minute, and a
minute for requests that were admitted before the processes knew of each other's.
"""
_CLOCKS = {
    "postgresql": "extract(epoch FROM clock_timestamp())::float8",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
_LARGER = {"postgresql": "greatest", "sqlite": "max"}
_SMALLER = {"postgresql": "least", "sqlite": "min"}
_SET_TIMEOUT = text("SET LOCAL statement_timeout = '2s'")


class RequestCharge(NamedTuple):
    """Requests of a name: the first was sent `age` seconds ago, and all of them take `cost` seconds to come
    back at the name's limit.
    """

    subject: QuotaSubject
    age: float
    cost: float


def charge(connection: Connection, charges: Iterable[RequestCharge]) -> dict[QuotaSubject, float]:
    """Adds these charges, at most one of a name. Returns the seconds until each name's requests are all
    paid for: negative if they have been for a while.
    """
    ordered = sorted(charges)  # two processes that charge the same names cannot wait for each other in a ring
    assert 0 < len(ordered) <= MAX_BATCH
    if (system := connection.dialect.name) == "postgresql":
        connection.execute(_SET_TIMEOUT)
    rows = connection.execute(text(_statement(system, len(ordered))), _values(ordered))
    return {QuotaSubject(scope, name): min(ahead, MAX_DEBT_SECONDS) for scope, name, ahead in rows}


def _statement(system: str, count: int) -> str:
    clock, larger, smaller = _CLOCKS[system], _LARGER[system], _SMALLER[system]
    values = ", ".join(
        f"(:scope{at}, :name{at}, {clock} - :age{at} + :cost{at}, :cost{at})" for at in range(count)
    )
    return (
        f"INSERT INTO request_use (scope, name, idle_at, cost) VALUES {values}"
        f" ON CONFLICT (scope, name) DO UPDATE SET cost = excluded.cost, idle_at = {smaller}("
        f"{larger}(request_use.idle_at, excluded.idle_at - excluded.cost) + excluded.cost,"
        f" {clock} + {MAX_DEBT_SECONDS}) RETURNING scope, name, idle_at - {clock}"
    )


def _values(charges: Sequence[RequestCharge]) -> dict[str, object]:
    found: dict[str, object] = {}
    for at, ((scope, name), age, cost) in enumerate(charges):
        found |= {f"scope{at}": scope, f"name{at}": name, f"age{at}": age, f"cost{at}": cost}
    return found
