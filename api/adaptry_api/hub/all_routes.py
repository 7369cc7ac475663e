"""The routes of the Hub protocol, one file per noun; `hub_routes` is the table of them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.hub import (
    info,
    lfs_batch,
    lfs_files,
    lfs_objects,
    lfs_parts,
    models,
    namespaces,
    preupload,
    refs,
    repos,
    resolve,
    tree,
    validate_yaml,
    whoami,
    xet_routes,
)


def hub_routes() -> list[APIRouter]:
    """What stands at the root of the host, by the addresses that the Hub's clients know."""
    uploads = [xet_routes.ROUTES, lfs_batch.ROUTES, lfs_objects.ROUTES, lfs_parts.ROUTES]
    reads = [models.ROUTES, info.ROUTES, tree.ROUTES, refs.ROUTES, resolve.ROUTES]
    reads += [namespaces.ROUTES, lfs_files.ROUTES]
    return [whoami.ROUTES, validate_yaml.ROUTES, *uploads, repos.ROUTES, preupload.ROUTES, *reads]
