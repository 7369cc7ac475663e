"""The routes of the Hub protocol, one file per route; `hub_routes` lists them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.hub import (
    auth_check,
    branch,
    commit,
    commits,
    discussions,
    info,
    lfs_batch,
    lfs_files,
    lfs_objects,
    lfs_parts,
    models,
    models_tags_by_type,
    organizations,
    paths_info,
    preupload,
    raw,
    refs,
    repos,
    resolve,
    results_inbox,
    settings,
    super_squash,
    tag,
    tree,
    users,
    validate_yaml,
    whoami,
    xet_chunks,
    xet_shards,
    xet_write_token,
    xet_xorbs,
)


def hub_routes() -> list[APIRouter]:
    """The routes at the root of the host, at the paths that the Hub's clients use."""
    xet_uploads = [xet_write_token.ROUTES, xet_xorbs.ROUTES, xet_chunks.ROUTES]
    shards = [xet_shards.ROUTES, xet_shards.FRAMED_ROUTES]
    lfs_uploads = [lfs_batch.ROUTES, lfs_objects.ROUTES, lfs_parts.ROUTES]
    repositories = [repos.ROUTES, settings.ROUTES, auth_check.ROUTES, discussions.ROUTES]
    commits_made = [preupload.ROUTES, commit.ROUTES]
    reads = [models.ROUTES, models_tags_by_type.ROUTES, info.ROUTES, tree.ROUTES, paths_info.ROUTES]
    revisions = [refs.ROUTES, commits.ROUTES, tag.ROUTES, branch.ROUTES, super_squash.ROUTES]
    # `/a/raw/resolve/…` and `/a/resolve/raw/…` are files of a repository whose name is two words.
    files = [raw.ROUTES, resolve.ROUTES, raw.ONE_WORD_ROUTES, resolve.ONE_WORD_ROUTES]
    namespaces = [users.ROUTES, organizations.ROUTES, lfs_files.ROUTES]
    return [
        whoami.ROUTES,
        validate_yaml.ROUTES,
        *xet_uploads,
        *shards,
        *lfs_uploads,
        *repositories,
        *commits_made,
        *reads,
        *revisions,
        *files,
        *namespaces,
        results_inbox.ROUTES,
    ]
