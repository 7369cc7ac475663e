"""The kinds of events: those about an adapter, which are sent to webhooks, and all others."""

from __future__ import annotations

from fnmatch import fnmatchcase

from adaptry.core.errors import Invalid
from adaptry.core.lifecycle import STATE_RULES
from adaptry.core.suggestions import suggestion

OF_ADAPTERS = frozenset(
    {
        "adapter.created",
        "adapter.edited",
        "adapter.renamed",
        "adapter.deleted",
        "version.pushed",
        "version.rechecked",
        "version.bound",
        "version.restored",
        "metrics.logged",
        "evidence.added",
        "evidence.withdrawn",
        "alias.moved",
        "alias.removed",
        "commit.created",
        "branch.created",
        "branch.deleted",
        "branch.squashed",
        "tag.created",
        "tag.deleted",
        "rollout.started",
        "rollout.advanced",
        "rollout.finished",
        "rollout.stopped",
        "rollout.aborted",
        *(f"version.{state}" for state in STATE_RULES if state != "active"),
    }
)
OF_NO_ADAPTER = frozenset(
    {
        "access.recovered",
        "base.registered",
        "base.updated",
        "base.stored",
        "base.edited",
        "worker.forgotten",
        "worker.gone",
        "worker.returned",
        "recall.remembered",
        "registry.restored",
    }
)


def require_adapter_kind(kind: str) -> None:
    """Raises `Invalid` unless events about adapters have this kind, or match it (`version.*`)."""
    if not any(fnmatchcase(one, kind) for one in OF_ADAPTERS):
        subjects = {f"{one.partition('.')[0]}.*" for one in OF_ADAPTERS}
        raise Invalid(
            f"no event of an adapter has the kind {kind!r}{suggestion(kind, OF_ADAPTERS | subjects)}"
            " (docs/events.md lists the kinds)"
        )
