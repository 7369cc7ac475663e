"""Checks that each base's record still gives the id under which it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from adaptry.bases.fingerprinting.base_fingerprint import check_identity
from adaptry.core.digest import Digest
from adaptry.storage.catalog import bases
from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.catalog.audit.problem import guard_problems
from adaptry.storage.catalog.database import Catalog


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        ids = bases.ids(tx)
    for id in ids:
        yield from guard_problems(f"base {id.brief}", partial(_of_base, catalog, id))


def _of_base(catalog: Catalog, id: Digest) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        record = bases.record(tx, id)
    if record is not None:
        check_identity(record)
        if record.id != id:
            yield IntegrityProblem(f"base {id.brief}", f"its record is that of base {record.id.brief}")
