"""What namespaces and principals store, against the rows of files and versions."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.storage.catalog import stored_use
from adaptry.storage.catalog.audit.problem import IntegrityProblem, compare_values
from adaptry.storage.catalog.database import Catalog


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        found, expected = stored_use.recorded(tx), stored_use.computed(tx)
    for subject in sorted(found.keys() | expected.keys()):
        names = ("bytes", "versions")
        for name, had, has in zip(
            names, found.get(subject, (0, 0)), expected.get(subject, (0, 0)), strict=True
        ):
            for problem in compare_values(f"stored use of {subject}", name, had, has, "its rows"):
                yield IntegrityProblem(problem.where, problem.reason, "derived", "stored-use:")
