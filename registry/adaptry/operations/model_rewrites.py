"""Aliases as an `InferenceModelRewrite` of the Gateway API Inference Extension (llm-d.ai/v1alpha2).

A router that rewrites `acme/tone@prod` to `acme/tone@sha256:0123456789ab` sends requests to the replicas that
have that version loaded, because engines list it under exactly that name. A rollout that is running becomes
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName, ByDigest, Label, Ref
from adaptry.operations.watch import RefPattern
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.rollouts import RolloutInfo, Rollouts


def build_model_rewrite(registry: Registry, refs: Sequence[str], pool: str, name: str) -> dict[str, Any]:
    """The object called `name` for the `InferencePool` `pool`: a rule for each alias that `refs` (refs and
    globs) match, in order. Aliases of withdrawn versions are left out. Raises `InvalidRef`. (`Any`: YAML.)
    """
    found: dict[str, VersionInfo] = {}
    for pattern in map(RefPattern.parse, refs):
        if pattern.ref is not None and not isinstance(pattern.ref.selector, Label):
            raise InvalidRef(f"{pattern.ref} is not an alias: only aliases move, and are rewritten")
        found |= dict(pattern.resolve(registry.versions, None))
    rules = [
        _rule(registry, ref, version)
        for ref, version in sorted(found.items())
        if version.state not in WITHDRAWN
    ]
    return {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": name},
        "spec": {
            "poolRef": {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool},
            "rules": rules,
        },
    }


def _rule(registry: Registry, ref: str, version: VersionInfo) -> dict[str, Any]:
    targets: list[dict[str, Any]] = [{"modelRewrite": _model(version.name, version.digest)}]
    if rollout := _running_rollout(registry.rollouts, ref, version):
        targets = [
            {"modelRewrite": _model(version.name, version.digest), "weight": 100 - rollout.percent},
            {"modelRewrite": _model(version.name, rollout.digest), "weight": rollout.percent},
        ]
    return {"matches": [{"model": {"type": "Exact", "value": ref}}], "targets": targets}


def _running_rollout(rollouts: Rollouts, ref: str, version: VersionInfo) -> RolloutInfo | None:
    alias = ref.partition("@")[2]
    return next(
        (one for one in rollouts.list(version.name) if one.stage == "running" and one.alias == alias), None
    )


def _model(name: AdapterName, digest: Digest) -> str:
    """The name that engines load the version under."""
    return str(Ref(name, ByDigest(digest.hex[:12])))
