"""One registry mirrors another: what is copied, what is updated, and what is left unchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from operator import itemgetter
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import CheckFailed, InvalidQuery, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import open_base, register_base
from adaptry.operations.lineage import ancestor_tree
from adaptry.operations.mirror.apply import MIRRORED
from adaptry.operations.mirror.plan import MirrorSelection, plan_mirror
from adaptry.operations.mirror.sync import sync_continuously, sync_once
from adaptry.operations.promotion import promote
from adaptry.operations.transfer import pull, push
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.operations.version_state import change_state
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage import backup
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.flaky_registry import FlakyRegistry
from adaptry.testing.samples import tiny_base

TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")
MakeLora = Callable[..., Adapter]
Pair = tuple[Registry, Registry]
ALL = MirrorSelection()


def state(registry: Registry, ref: str) -> tuple[str, str | None]:
    version = registry.versions.get(Ref.parse(ref))
    return version.state, version.last_state_change.reason if version.last_state_change else None


def change(
    registry: Registry, ref: str, to: str, reason: str = "it leaks", successor: str | None = None
) -> None:
    change_state(registry, Ref.parse(ref), StateChange(state=to, reason=reason, successor=successor))


def test_versions_are_copied_with_their_metrics_aliases_and_texts(
    served: Pair, lora: MakeLora, tmp_path: Path
) -> None:
    there, here = served
    register_base(there, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    for seed in (1, 2, 3):
        push(there, lora(seed), TONE, options=PushOptions(metrics={"accuracy": seed / 10}))
    there.metrics.log(Ref.parse("acme/tone@1"), {"accuracy": 0.5, "loss": 2.0})
    there.adapters.edit(TONE, AdapterEdit(description="how it talks", tags=("warm",)))
    change(there, "acme/tone@2", "deprecated", successor="acme/tone@3")

    followed = sync_once(there, here, ALL)

    assert sorted(followed.copied) == ["acme/tone@1", "acme/tone@2", "acme/tone@3"]
    assert followed.failures == ()
    for number in (1, 2, 3):
        was, version = (each.versions.detail(Ref.parse(f"acme/tone@{number}")) for each in (there, here))
        assert version.manifest == was.manifest
        assert version.version.base_status == "verified"
        logged = [
            [(one.metric, one.value) for one in each.metrics.list(Ref.parse(f"acme/tone@{number}"))]
            for each in served
        ]
        assert sorted(logged[0], key=itemgetter(0)) == sorted(logged[1], key=itemgetter(0))
    assert state(here, "acme/tone@2") == ("deprecated", "mirrored: it leaks")
    adapter = here.adapters.get(TONE)
    assert (adapter.description, adapter.tags, adapter.visibility) == (
        "how it talks",
        ("warm", MIRRORED),
        "private",
    )
    assert (
        pull(here, "acme/tone@1", tmp_path / "pulled").digest
        == there.versions.get(Ref.parse("acme/tone@1")).digest
    )


def test_a_second_round_has_nothing_to_do(pair: Pair, lora: MakeLora) -> None:
    there, here = pair
    push(there, lora(1), TONE, options=PushOptions(metrics={"accuracy": 0.5}, alias="prod"))
    push(there, lora(2), TONE)
    change(there, "acme/tone@2", "yanked", "x" * 1024, "acme/tone@1")
    choice = MirrorSelection(query="state:*", aliases=True)
    assert sync_once(there, here, choice).is_change

    again = sync_once(there, here, choice)

    assert not again.is_change
    assert again.failures == ()


def test_a_query_selects_versions_and_their_numbers_stay(pair: Pair, lora: MakeLora) -> None:
    there, here = pair
    for seed, rank in enumerate((4, 8, 4, 8), 1):
        push(there, lora(seed, rank=rank), TONE)

    assert sync_once(there, here, MirrorSelection(query="rank>=8")).copied == ("acme/tone@2", "acme/tone@4")
    assert sync_once(there, here, ALL).copied == ("acme/tone@1", "acme/tone@3")

    assert [one.number for one in here.versions.list(TONE).items] == [4, 3, 2, 1]
    numbers = {each.versions.get(Ref.parse("acme/tone@3")).digest for each in pair}
    assert len(numbers) == 1


def test_revocations_and_restorations_of_the_source_are_applied(pair: Pair, lora: MakeLora) -> None:
    there, here = pair
    push(there, lora(1), TONE)
    sync_once(there, here, MirrorSelection(query="rank<=4"))

    change(there, "acme/tone@1", "revoked")
    assert sync_once(there, here, MirrorSelection(query="rank<=4")).updated == ("acme/tone@1",)
    assert state(here, "acme/tone@1") == ("revoked", "mirrored: it leaks")

    change(there, "acme/tone@1", "active", "a false alarm")
    sync_once(there, here, ALL)
    assert state(here, "acme/tone@1")[0] == "active"


def test_a_recall_that_the_source_forgot_in_a_restore_stays_until_someone_decides(
    source: LocalRegistry, target: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    push(source, lora(1), TONE)
    change(source, "acme/tone@1", "yanked", "it stutters")
    change(source, "acme/tone@1", "active", "it was the microphone")
    backup.create(source, tmp_path / "backup")
    sync_once(source, target, ALL)
    change(source, "acme/tone@1", "revoked")
    sync_once(source, target, ALL)
    backup.restore(tmp_path / "backup", tmp_path / "restored")

    with closing(open_local(tmp_path / "restored")) as restored:
        assert state(restored, "acme/tone@1")[0] == "active"
        for _ in range(2):
            (failure,) = sync_once(restored, target, ALL).failures
            assert failure.what == "acme/tone@1"
            assert "stays revoked here" in failure.reason
            assert "adaptry restore acme/tone@1 --reason" in failure.reason
            assert state(target, "acme/tone@1") == ("revoked", "mirrored: it leaks")

        # Both remedies end it: the decision is made again at the source, or here.
        change(restored, "acme/tone@1", "revoked", "it leaks, as before")
        assert sync_once(restored, target, ALL).failures == ()
        change(restored, "acme/tone@1", "active", "it never leaked")
        assert sync_once(restored, target, ALL).failures == ()
        assert state(target, "acme/tone@1")[0] == "active"


def test_a_forgotten_recall_can_be_taken_back_here(
    source: LocalRegistry, target: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    push(source, lora(1), TONE)
    backup.create(source, tmp_path / "backup")
    sync_once(source, target, ALL)
    change(source, "acme/tone@1", "revoked")
    sync_once(source, target, ALL)
    backup.restore(tmp_path / "backup", tmp_path / "restored")

    change(target, "acme/tone@1", "active", "the recall was a mistake")

    with closing(open_local(tmp_path / "restored")) as restored:
        followed = sync_once(restored, target, ALL)
    assert (followed.failures, state(target, "acme/tone@1")[0]) == ((), "active")


def test_a_local_recall_stays(source: LocalRegistry, target: LocalRegistry, lora: MakeLora) -> None:
    push(source, lora(1), TONE)
    sync_once(source, target, ALL)
    change(target, "acme/tone@1", "quarantined", "we look into it")

    change(source, "acme/tone@1", "deprecated", "there is a better one")
    sync_once(source, target, ALL)
    assert state(target, "acme/tone@1") == ("quarantined", "we look into it")

    change(source, "acme/tone@1", "revoked")
    sync_once(source, target, ALL)
    assert state(target, "acme/tone@1") == ("revoked", "mirrored: it leaks")


def test_withdrawn_versions_are_not_copied(pair: Pair, lora: MakeLora) -> None:
    there, here = pair
    push(there, lora(1), TONE)
    push(there, lora(2), TONE)
    change(there, "acme/tone@1", "revoked")

    followed = sync_once(there, here, MirrorSelection(query="state:*"))

    assert (followed.copied, followed.withheld) == (("acme/tone@2",), ("acme/tone@1",))


def test_aliases_are_copied_on_request(pair: Pair, lora: MakeLora) -> None:
    there, here = pair
    push(there, lora(1), TONE, options=PushOptions(alias="prod"))
    sync_once(there, here, ALL)
    assert here.aliases.list(TONE) == ()

    assert sync_once(there, here, MirrorSelection(aliases=True)).pointed == ("acme/tone@prod",)
    push(there, lora(2), TONE)
    promote(there, Ref.parse("acme/tone@2"), "prod")
    assert sync_once(there, here, MirrorSelection(aliases=True)).pointed == ("acme/tone@prod",)
    assert [(one.alias, one.number) for one in here.aliases.list(TONE)] == [("prod", 2)]


def test_a_derived_version_brings_its_parents_on_request(
    source: LocalRegistry, target: LocalRegistry, lora: MakeLora
) -> None:
    parent = push(source, lora(1), VOICE).version
    push(source, lora(2), TONE, parents=(parent.digest,))

    sync_once(source, target, MirrorSelection(query="name:tone"))
    assert ancestor_tree(target, "acme/tone").relatives[0].refs == ()

    sync_once(source, target, MirrorSelection(query="name:tone", parents=True))
    assert ancestor_tree(target, "acme/tone").relatives[0].refs == ("acme/voice@1",)


def test_stored_bases_are_copied_on_request(pair: Pair, lora: MakeLora, tmp_path: Path) -> None:
    there, here = pair
    register_base(there, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",), store=True)
    push(there, lora(1), TONE)

    sync_once(there, here, ALL)
    assert not here.bases.get("org/tiny").is_stored

    push(there, lora(2), TONE)
    sync_once(there, here, MirrorSelection(base_files=True))
    assert here.bases.get("org/tiny").stored == there.bases.get("org/tiny").stored
    assert open_base(here, "org/tiny", cache=tmp_path / "cache").shards


def test_a_version_bound_to_a_base_is_copied_bound(pair: Pair, lora: MakeLora, tmp_path: Path) -> None:
    there, here = pair
    base = register_base(there, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    bound, waiting = (push(there, lora(seed, base_name="/gone"), TONE).version for seed in (1, 2))
    there.versions.bind_base(TONE, bound.digest, base.id)

    sync_once(there, here, ALL)

    found = [here.versions.get(version.revision_ref) for version in (bound, waiting)]
    assert [(version.base_id, version.base_status) for version in found] == [
        (base.id, "verified"),
        (None, "declared"),
    ]


def test_versions_deleted_at_the_source_are_reported_and_deleted_only_on_request(
    pair: Pair, lora: MakeLora
) -> None:
    there, here = pair
    push(there, lora(1), TONE, options=PushOptions(alias="prod"))
    push(there, lora(2), VOICE)
    push(here, lora(3), "ours/own")
    sync_once(there, here, MirrorSelection(aliases=True))
    there.aliases.remove(TONE, "prod", 1)
    there.adapters.delete(TONE)

    assert sync_once(there, here, ALL).gone == ("acme/tone",)
    assert sync_once(there, here, MirrorSelection(delete=True)).deleted == ("acme/tone",)

    assert [str(one.name) for one in here.adapters.list().items] == ["acme/voice", "ours/own"]


def test_a_source_that_lists_nothing_causes_no_deletion(
    source: LocalRegistry, target: LocalRegistry, lora: MakeLora
) -> None:
    push(source, lora(1), TONE)
    sync_once(source, target, ALL)
    source.adapters.delete(TONE)

    with pytest.raises(CheckFailed, match="nothing was deleted"):
        sync_once(source, target, MirrorSelection(delete=True))
    assert target.adapters.get(TONE).versions == 1


def test_a_refused_version_is_reported_and_the_others_are_copied(
    source: LocalRegistry, target: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    push(source, lora(1, base_name="org/other"), VOICE)
    push(source, lora(2), TONE)
    register_base(target, open_checkpoint(tiny_base(tmp_path / "base", hidden=8)), ("org/other",))

    followed = sync_once(source, target, ALL)

    assert followed.copied == ("acme/tone@1",)
    assert [one.what for one in followed.failures] == ["acme/voice@1"]


def test_an_interrupted_round_resumes(source: LocalRegistry, target: LocalRegistry, large: MakeLora) -> None:
    for seed in (1, 2, 3):
        push(source, large(seed), TONE)
    size = sum(version.size for version in source.versions.list(TONE).items)
    breaking = FlakyRegistry(target.context)
    rounds = 1
    for _ in range(9):
        breaking.cuts = 2
        try:
            sync_once(source, breaking, ALL, retry=RetryPolicy(tries=1))
            break
        except Unavailable:
            rounds += 1

    assert rounds > 3
    assert breaking.sent < size + 10_000  # the configs, which are not resumed
    assert not sync_once(source, target, ALL).is_change
    assert verify(target.catalog, target.blobs) == ()


def test_events_of_the_source_are_followed_as_they_happen(pair: Pair, lora: MakeLora) -> None:
    there, here = pair
    push(there, lora(1), TONE)
    rounds = sync_continuously(there, here, MirrorSelection(aliases=True), wait=20)
    assert next(rounds).copied == ("acme/tone@1",)

    push(there, lora(2), VOICE, options=PushOptions(alias="prod"))
    followed = next(rounds)
    assert (followed.copied, followed.pointed) == (("acme/voice@1",), ("acme/voice@prod",))
    change(there, "acme/tone@1", "revoked")
    assert next(rounds).updated == ("acme/tone@1",)
    there.adapters.rename(VOICE, AdapterName.parse("acme/song"))
    followed = next(rounds)
    assert (followed.copied, followed.gone) == (("acme/song@1",), ("acme/voice",))


def test_a_follower_without_events_reports_that(source: LocalRegistry, target: LocalRegistry) -> None:
    rounds = sync_continuously(source, target, ALL, wait=0)
    assert [next(rounds).is_change for _ in range(3)] == [False] * 3


def test_a_dry_run_changes_nothing(source: LocalRegistry, target: LocalRegistry, lora: MakeLora) -> None:
    push(source, lora(1), TONE)
    assert [one.number for one in plan_mirror(source, target, ALL).copy] == [1]
    assert target.adapters.list().items == ()


def test_a_round_takes_a_query_or_names_but_not_both(source: LocalRegistry, target: LocalRegistry) -> None:
    with pytest.raises(InvalidQuery):
        plan_mirror(source, target, MirrorSelection(query="rank>=8", names=(TONE,)))
    with pytest.raises(InvalidQuery, match="unknown field"):
        plan_mirror(source, target, MirrorSelection(query="colour:red"))
