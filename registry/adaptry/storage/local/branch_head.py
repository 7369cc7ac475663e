"""The head of a branch, for commits to it, and the right that the name `prod` requires."""

from __future__ import annotations

from adaptry.core.errors import PermissionDenied
from adaptry.core.hub_revision import missing_branch, parse_hub_revision
from adaptry.registry.aliases import PRODUCTION
from adaptry.storage.catalog import aliases, commits, git_refs
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.commits import CommitRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext


def branch_head(tx: Transaction, adapter: AdapterRecord, branch: str) -> CommitRecord:
    """The commit at the branch's head. Raises `RevisionNotFound`, `PermissionDenied` for an alias."""
    revision_name = parse_hub_revision(branch)
    ref = git_refs.find(tx, adapter, revision_name.name) if revision_name.scope != "tag" else None
    if ref and ref.kind == "branch":
        commit = commits.find_by_ref(tx, adapter, ref.name)
        assert commit is not None
        return commit
    refuse_alias(tx, adapter, revision_name.name)
    raise missing_branch(adapter.name, branch, is_tag=ref is not None)


def require_ref_right(context: RegistryContext, adapter: AdapterRecord, name: str) -> None:
    """Raises `PermissionDenied` for a caller who may not make, move or delete a branch or tag of this name:
    engines and clients of the Hub load `prod` by its name, so it requires the right to move the alias.
    """
    if name.lower() == PRODUCTION:
        context.require("alias.move", adapter.name, alias=PRODUCTION)


def refuse_alias(tx: Transaction, adapter: AdapterRecord, name: str) -> None:
    alias = aliases.find(tx, adapter, name)
    if alias:
        raise PermissionDenied(
            f"{name} is an alias of {adapter.name} and moves only from version to version: "
            f"`adaptry alias set {adapter.name}@{alias.number} {name}`"
        )
