"""Rebuilds derived rows: a problem's key identifies them."""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import (
    adapters,
    folded_names,
    inspections,
    rebuild,
    stored_use,
    weight_measurements,
)
from adaptry.storage.catalog.rebuild import VersionSource
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.inspections import inspect_weights
from adaptry.storage.maintenance.integrity.rederivation import rederive


def rebuild_rows(registry: LocalRegistry, key: str) -> None:
    """Rebuilds the rows that `key` names (see `IntegrityProblem`), unless the version was deleted. Raises the
    errors of admission.
    """
    kind, _, rest = key.partition(":")
    catalog = registry.catalog
    if kind == "version":
        _rebuild_version(registry, int(rest))
        return
    with catalog.write() as tx:
        match kind:
            case "index":
                rebuild.index_version(tx, int(rest))
            case "metrics":
                rebuild.summarise_metrics(tx, int(rest))
            case "version-count":
                adapters.recount_versions(tx, int(rest))
            case "folded":
                folded_names.refold(tx)
            case "inspection":
                inspections.delete(tx, Digest(rest))  # the next read of a version inspects it again
            case "weight-measurement":
                first, _, second = rest.partition(":")
                weight_measurements.delete(tx, first, second)  # a job measures again on demand
            case "namespaces":
                rebuild.rebuild_namespaces(tx)
            case "stored-use":
                stored_use.rebuild(tx)
            case "base":
                rebuild.summarise_base(tx, Digest(rest))
            case _:
                raise Invalid(f"unknown derived rows: {key[:80]!a}")


def _rebuild_version(registry: LocalRegistry, key: int) -> None:
    with registry.catalog.read() as tx:
        kept = rebuild.read_version_source(tx, key)
    if kept is None:
        return
    inspect_weights(registry.context, _adapter_of(kept), kept.manifest)
    derived = rederive(registry.catalog, registry.blobs, kept)
    with registry.catalog.write() as tx:
        rebuild.put_version(tx, key, derived, registry.clock(), registry.identity.name)
        rebuild.store_weights_digests(tx, kept.manifest, derived.weights)


def _adapter_of(kept: VersionSource) -> AdapterName:
    return AdapterName.parse(kept.name.rpartition("@")[0])
