"""An audit of the catalog: every row compared with what else is known of it.

Values are looked at by themselves (`domains`), and against each other: an adapter's rows against its events, which say the same
in another place (`adapters`, `chains`, `rollouts`), the search index against what it is derived from (`index`), bases against
their records (`bases`), files against manifests (`files`). Each adapter is looked at in one read transaction, so that an audit
beside running pushes sees no change by halves. Nothing is changed, and no stored file is read.
"""

from adaptry.storage.catalog.audit.full_audit import audit
from adaptry.storage.catalog.audit.problem import IntegrityProblem, ProblemKind

__all__ = ["IntegrityProblem", "ProblemKind", "audit"]
