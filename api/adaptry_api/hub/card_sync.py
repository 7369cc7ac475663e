"""Applies the model card of a commit to `main` to the registry: tags, description, metrics.

Tags of the previous card that are no longer in the card are removed; tags that were set in other ways stay.
Metrics are logged for the version with the commit's weights: a trainer writes them into the card after it has
sent the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.registry.adapters import Adapters
from adaptry.registry.commit_info import CommitResult
from adaptry.registry.files import Files
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry_api.hub.card import README, Card
from adaptry_api.hub.computed_cache import HubCaches
from adaptry_api.hub.snapshots import card_of

_MAX_TAGS = 64
_MAX_TEXT = 4096
_MAX_METRICS_BATCH = 64
_MAX_NAMES = 5  # in a warning, which is a header


def sync_card(
    registry: Registry, name: AdapterName, before: Manifest, committed: CommitResult, caches: HubCaches
) -> list[str]:
    """Applies the card. Idempotent, since a commit may be sent again. Returns warnings: the card's metrics
    are left out for a caller who may push but not add evidence, such as a CI job, and for a version that
    would have too many. That is not an error, since the commit has been made.
    """
    after = registry.commits.tree(name, committed.commit.digest)
    old, new = _card(registry.files, name, before, caches), _card(registry.files, name, after, caches)
    if before.file(README) != after.file(README):
        _update_details(registry.adapters, name, old, new)
    number = committed.commit.number or committed.commit.carries
    # For a version that exists already, only metrics that the old card did not have are logged.
    known = {} if committed.version else old.metrics
    metrics = {metric: value for metric, value in new.metrics.items() if known.get(metric) != value}
    if number and metrics:
        version = Ref(name, Number(number))
        have = registry.versions.get(version).metrics
        fresh = [(metric, value) for metric, value in metrics.items() if have.get(metric) != value]
        for at in range(0, len(fresh), _MAX_METRICS_BATCH):
            try:
                registry.metrics.log(version, dict(fresh[at : at + _MAX_METRICS_BATCH]))
            except (PermissionDenied, Invalid) as error:
                left = [metric for metric, _ in fresh[at:]]
                names = ", ".join(left[:_MAX_NAMES]) + (", …" if len(left) > _MAX_NAMES else "")
                return [f"metrics of the README were not logged ({names}): {error.message}"]
    return []


def _update_details(adapters: Adapters, name: AdapterName, old: Card, new: Card) -> None:
    info = adapters.get(name)
    tags = tuple(dict.fromkeys([*(tag for tag in info.tags if tag not in old.tags), *new.tags]))[:_MAX_TAGS]
    description = new.data.get("description")
    was = old.data.get("description")
    is_new = isinstance(description, str) and description != was and info.description in ("", was)
    edit = AdapterEdit(
        tags=tags if tags != info.tags else None, description=str(description)[:_MAX_TEXT] if is_new else None
    )
    if edit != AdapterEdit():
        adapters.edit(name, edit)


def _card(files: Files, name: AdapterName, tree: Manifest, caches: HubCaches) -> Card:
    def read(path: str, start: int) -> Iterator[bytes]:
        return files.read(name, tree.digest, path, start)

    return card_of({entry.path: entry for entry in tree.files}, read, caches)
