"""Names in lower case, to find names that differ only in case: each against its original."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.storage.catalog import folded_names
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        for table, name, folded in folded_names.misfolded(tx):
            reason = f"its stored lower-case form is {folded!a}, so a search in another case misses it"
            yield IntegrityProblem(f"{name} in {table}", reason, "derived", "folded")
