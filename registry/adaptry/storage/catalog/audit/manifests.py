"""Manifests: each against the digest under which it is stored."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.manifest import Manifest
from adaptry.storage.catalog import scan
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    for digest, data in scan.manifests(catalog):
        where = f"revision {digest.brief}"
        if Digest.of(data) != digest:
            reason = (
                "its manifest differs from the one that was pushed; push the same files again, or run"
                " `adaptry repair --from` with a copy"
            )
            yield IntegrityProblem(where, reason, "manifest", digest.hex)
            continue
        try:
            manifest = Manifest.parse(data)
        except AdaptryError as error:
            yield IntegrityProblem(where, error.message, "manifest", digest.hex)
            continue
        for owner, missing in scan.files_not_owned(catalog, digest, manifest):
            yield IntegrityProblem(f"{owner}@{digest.brief}", f"the row for its file {missing} is missing")
        for owner, path in scan.files_of_another_size(catalog, manifest):
            yield IntegrityProblem(
                f"{owner}@{digest.brief}", f"the size of {path} differs between its row and the manifest"
            )
