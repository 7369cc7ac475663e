"""A worker's token loses rights: the worker unloads what it may no longer read, and serves the rest."""

from __future__ import annotations

import pytest

from adaptry.core.errors import PermissionDenied
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.follow.lost_refs import LostRefs
from adaptry.integrations.serving.follow.reconciler import Reconciler
from adaptry.operations.watch import RefPattern
from adaptry.registry.access import GrantRequest
from adaptry.registry.workers import MAX_PROBLEMS

from .conftest import PROD, TONE, Scene, settle
from .test_restored_registry import backed_up, restored

OTHER = AdapterName.parse("beta/tone")
OTHER_PROD = "beta/tone@prod"


def take(scene: Scene, resource: str, role: str = "worker") -> None:
    for grant in scene.registry.grants.list(principal="gpu-1").items:
        if (str(grant.resource), grant.permission) == (resource, role):
            scene.registry.grants.remove(grant.id)


def give(scene: Scene, resource: str, role: str = "worker") -> None:
    request = {"principal": "gpu-1", "permission": role, "resource": resource}
    scene.registry.grants.add(GrantRequest.model_validate(request))


def settle_after_a_minute(worker: Reconciler) -> None:
    """The loss of a right causes no event: the worker notices it when it checks everything."""
    worker._watcher.reset()
    settle(worker)


def count(scene: Scene, text: str) -> int:
    return sum(text in line for line in scene.story)


@pytest.mark.parametrize("watch", [("*/*@prod",), (PROD, OTHER_PROD)])
def test_an_adapter_that_the_token_may_no_longer_read_is_unloaded_and_reported(
    scene: Scene, watch: tuple[str, ...]
) -> None:
    engine = scene.engine()
    scene.alias(scene.publish(1))
    scene.alias(scene.publish(2, OTHER))
    token = scene.server.token("gpu-1", "worker", ("acme", "beta"))
    worker = scene.worker(engine, watch=watch, token=token)
    settle(worker)

    take(scene, "beta")
    settle_after_a_minute(worker)
    settle(worker)
    assert (scene.serves(engine), scene.serves(engine, OTHER_PROD)) == (1, None)
    (problem,) = scene.registry.workers.get("gpu-1").problems
    assert problem.served_as == OTHER_PROD
    assert "does not show beta/tone" in problem.reason
    assert "`adaptry grant add PRINCIPAL worker beta`" in problem.reason
    assert count(scene, problem.reason) == 1

    give(scene, "beta")
    settle_after_a_minute(worker)
    assert (scene.serves(engine), scene.serves(engine, OTHER_PROD)) == (1, 1)
    assert scene.registry.workers.get("gpu-1").problems == ()


def test_without_the_right_to_report_a_worker_keeps_what_is_loaded_and_loads_nothing_new(
    scene: Scene,
) -> None:
    engine = scene.engine()
    scene.alias(scene.publish(1))
    worker = scene.worker(engine)
    settle(worker)

    give(scene, "acme", "viewer")
    take(scene, "acme", "worker")
    scene.alias(scene.publish(2))
    for _ in range(3):
        assert not worker.reconcile(0.0)
    assert scene.serves(engine) == 1
    assert isinstance(worker.connection_error, PermissionDenied)
    assert count(scene, "may not report for a worker") == 1

    take(scene, "acme", "viewer")  # now it may no longer read anything
    worker._watcher.reset()
    worker.reconcile(0.0)
    assert scene.serves(engine) is None

    give(scene, "acme")
    settle_after_a_minute(worker)
    assert scene.serves(engine) == 2
    assert count(scene, "accepts this worker's reports again") == 1


def test_a_worker_goes_on_with_a_restored_registry_that_does_not_know_its_right_to_report(
    scene: Scene,
) -> None:
    """As soon as it may report, it sends the recalls that this registry may have lost."""
    engine = scene.engine()
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    backup = backed_up(scene)
    worker = scene.worker(engine)
    settle(worker)
    scene.stand(first)
    scene.alias(second)
    settle(worker)
    with restored(scene, backup):
        worker = scene.worker(engine, token=scene.token("gpu-1"))  # earlier ones are no longer valid
        give(scene, "acme", "viewer")
        take(scene, "acme")
        worker.reconcile(0.0)
        worker.reconcile(0.0)
        assert scene.serves(engine) is None  # the alias points at the first one again, which is recalled here
        assert scene.registry.versions.get(first.revision_ref).state == "active"
        give(scene, "acme")
        settle(worker)
        assert scene.registry.versions.get(first.revision_ref).state == "quarantined"


def test_a_name_that_is_watched_itself_is_reported_before_many_that_a_pattern_lost(scene: Scene) -> None:
    watched = (RefPattern.parse("acme/*@prod"), RefPattern.parse("zeta/tone@prod"))
    lost = LostRefs(scene.registry, "gpu-1", watched, print)
    lost.update([f"acme/tone-{number}@prod" for number in range(2 * MAX_PROBLEMS)], {})
    assert len(lost.problems) == MAX_PROBLEMS
    assert "zeta/tone@prod" in lost.problems


@pytest.mark.parametrize("is_renamed", [False, True])
def test_an_adapter_that_was_deleted_or_renamed_is_not_reported_as_a_lost_right(
    scene: Scene, is_renamed: bool
) -> None:
    """A name that a pattern matched is forgotten; one that is watched itself is reported as missing."""
    engine = scene.engine()
    scene.alias(scene.publish(1, OTHER))
    token = scene.server.token("gpu-1", "worker", ("acme", "beta"))
    engine.refuses |= scene.weights.keys()  # an adapter that is loaded is not deleted
    by_pattern = scene.worker(engine, watch=("beta/*@prod",), token=token)
    by_pattern.reconcile(0.0)
    assert "greater than max_lora_rank" in scene.registry.workers.get("gpu-1").problems[0].reason

    if is_renamed:
        scene.registry.adapters.rename(OTHER, TONE)
    else:
        scene.registry.aliases.remove(OTHER, "prod", 1)
        scene.registry.adapters.delete(OTHER)
    settle(by_pattern)
    assert scene.registry.workers.get("gpu-1").problems == ()

    settle(scene.worker(engine, watch=(OTHER_PROD,), token=token))
    (problem,) = scene.registry.workers.get("gpu-1").problems
    assert "the registry has no adapter beta/tone" in problem.reason
