"""The statement that resolves a ref, without SQLAlchemy: `ref_resolution` defines the statements."""

from __future__ import annotations

from typing import Any

from adaptry.core.refs import ByDigest, Label, Latest, Number, Ref
from adaptry.storage.catalog.statement_texts import (
    REF_BY_DIGEST,
    REF_BY_LABEL,
    REF_BY_NUMBER,
    REF_LATEST,
    PreparedStatement,
)


def ref_query(ref: Ref) -> tuple[PreparedStatement[Any], dict[str, object]]:
    """Selects the adapter that a ref names, with the versions that match: none, one, or the first two.
    (`Any`: typed by columns.)
    """
    name = str(ref.name)
    match ref.selector:
        case Latest():
            return REF_LATEST, {"name": name}
        case Number(number):
            return REF_BY_NUMBER, {"name": name, "number": number}
        case Label(label):
            return REF_BY_LABEL, {"name": name, "alias": label}
        case ByDigest(prefix):
            return REF_BY_DIGEST, {"name": name, "prefix": prefix, "beyond": prefix + "g"}
