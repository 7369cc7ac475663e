"""`verify` checks that stored data is unchanged: every row and every file.

Bytes without a row are not a problem: an interrupted push left them, and a sweep collects them. A row whose
bytes are missing or changed is a problem, and so is a row that contradicts other data. `verify` can run
beside pushes, sweeps and servers.
"""

from __future__ import annotations

from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.maintenance.integrity.verification import verify

__all__ = ["IntegrityProblem", "verify"]
