"""An audit of the catalog: every row is compared with the other data that it must agree with.

Each value must be valid by itself (`column_values`) and agree with others: an adapter's rows with its events
(`adapters`, `versions`, `commits`, `rollouts`), the search index with the rows it is derived from
(`search_index`), bases with their records (`bases`), files with manifests (`files`). Each adapter is read in
one transaction, so that an audit during pushes sees no half-made change. Nothing is changed, and no stored
file is read.
"""

from adaptry.storage.catalog.audit.full_audit import audit
from adaptry.storage.catalog.audit.problem import IntegrityProblem, ProblemKind

__all__ = ["IntegrityProblem", "ProblemKind", "audit"]
