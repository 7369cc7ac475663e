"""`lfs-files`: the large files of an adapter, in all commits of its branches and tags.

Files can be listed. Deleting a single one is refused, since a version keeps its files.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.errors import Unsupported
from adaptry.core.refs import AdapterName
from adaptry.registry.commit_info import CommitInfo
from adaptry.registry.commits import MAIN, Commits
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import Page
from adaptry_api.auth_policy import Caller, CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name
from adaptry_api.hub.gitids import is_large
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.tree_entries import format_time
from adaptry_api.hub.uploads import require_writer

ROUTES = hub_router()
_PAGE = 200


@ROUTES.get(f"{MODELS}/lfs-files")
def list_lfs_files(name: Name, registry: CallersRegistry) -> list[dict[str, Any]]:
    """Each file once, with its first commit, newest first. (`Any`: JSON.)"""
    found: dict[str, dict[str, Any]] = {}
    for ref, commit in _commits(registry.commits, name):
        for entry in registry.commits.tree(name, commit.digest).files:
            if is_large(entry.path, entry.size):
                found[entry.sha256.hex] = {
                    "fileOid": entry.sha256.hex,
                    "oid": entry.sha256.hex,
                    "filename": entry.path,
                    "size": entry.size,
                    "pushedAt": format_time(commit.at),
                    "ref": ref,
                }
    return sorted(found.values(), key=lambda file: str(file["pushedAt"]), reverse=True)


@ROUTES.post(f"{MODELS}/lfs-files/batch")
def delete(name: Name, identity: Caller, registry: CallersRegistry) -> None:
    """Refuses to delete files: raises `Unsupported`."""
    require_writer(registry, identity, name)
    raise Unsupported(
        f"single files of {name} cannot be deleted: a version keeps its files permanently. Delete a branch or"
        " the adapter instead (delete_branch, delete_repo); files that nothing refers to are then"
        " collected (`adaptry gc`)"
    )


def _commits(commits: Commits, name: AdapterName) -> list[tuple[str, CommitInfo]]:
    """Every commit of every branch with the ref that leads to it, the oldest last; each revision once."""
    seen: set[Digest] = set()
    found: list[tuple[str, CommitInfo]] = []
    references = commits.references(name)
    words = [MAIN, *(info.name for info in references if info.kind == "branch")]
    words += [info.name for info in references if info.kind == "tag"]
    for word in words:
        for commit in iter_items(partial(_page, commits, name, word)):
            if commit.digest in seen:
                break  # the rest of the chain was read already
            seen.add(commit.digest)
            found.append((f"refs/heads/{word}", commit))
    return sorted(found, key=lambda pair: pair[1].at, reverse=True)


def _page(commits: Commits, name: AdapterName, word: str, cursor: str | None) -> Page[CommitInfo]:
    return commits.list(name, f"refs/heads/{word}" if word == MAIN else word, cursor, _PAGE)
