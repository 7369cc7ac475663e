"""Is what is stored what was stored? `verify` looks at every row and every file.

Bytes that no row names are no problem: a push that died left them, and a sweep collects them. A row whose
bytes are missing or changed is one, and so is a row that disagrees with what else is known of it. `verify`
runs beside pushes, sweeps and servers.
"""

from __future__ import annotations

from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.maintenance.integrity.verification import verify

__all__ = ["IntegrityProblem", "verify"]
