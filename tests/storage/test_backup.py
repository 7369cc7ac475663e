"""A backup is a consistent snapshot of a registry, whatever happens meanwhile; a restore is complete or has
no effect.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptry import open_dir
from adaptry.core.errors import CheckFailed, Conflict, CorruptData, InvalidBackup, NotFound, Unauthenticated
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.audit_verification import verify_log
from adaptry.operations.transfer import pull, push
from adaptry.registry.access import InvitationRequest
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.registry.webhooks import WebhookRequest
from adaptry.storage.backup import create, restore
from adaptry.storage.backup.restoration import check
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import open_local
from adaptry.storage.invitations import accept
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.storage.maintenance.integrity import verify
from adaptry.storage.tokens import create_token, identify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora
from adaptry_cli.main import main

TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")
Start = Callable[..., "subprocess.Popen[str]"]
KINDS = pytest.mark.parametrize("place", ["backups", "backup.tar"])


def publish(registry: LocalRegistry, tmp_path: Path, seed: int, name: AdapterName = TONE) -> VersionInfo:
    lora = tiny_lora(tmp_path / f"published-{seed}-{name.name}", seed=seed)
    return push(registry, open_dir(lora), name).version


def filled(folder: Path, tmp_path: Path) -> LocalRegistry:
    registry = open_local(folder)
    version = publish(registry, tmp_path, 1)
    registry.aliases.move(TONE, "prod", version.digest, was=None)
    return registry


def modes(place: Path) -> set[str]:
    found = place.rglob("*") if place.is_dir() else [place]
    return {oct(path.stat().st_mode & 0o777) for path in found if path.is_file()}


@KINDS
def test_a_registry_is_restored_whole_into_an_empty_place(place: str, folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        made = create(registry, tmp_path / place)
        publish(registry, tmp_path, 2)
    assert modes(made.place) == {"0o600"}
    assert check(tmp_path / place) == made.index
    restore(tmp_path / place, tmp_path / "new")
    with closing(open_local(tmp_path / "new")) as restored:
        assert [one.number for one in restored.versions.list(TONE).items] == [1]
        assert verify(restored.catalog, restored.blobs) == ()
        pull(restored, "acme/tone@prod", tmp_path / "pulled")
        assert open_dir(tmp_path / "pulled").spec == open_dir(tmp_path / "published-1-tone").spec


@pytest.mark.heavy
@KINDS
def test_a_backup_during_pushes_and_sweeps_is_complete(
    place: str, folder: Path, tmp_path: Path, loras: Callable[[int], list[Path]], start: Start
) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        publish(registry, tmp_path, 3, VOICE)
        with start("acme/storm", loras(4)) as pushing:
            count = 0
            while pushing.poll() is None:
                create(registry, (tmp_path / place).with_stem(f"{count}"))
                collect_garbage(registry, grace=timedelta(0))
                count += 1
            pushing.communicate()
            assert pushing.returncode == 0
    for number in range(count):
        restore((tmp_path / place).with_stem(f"{number}"), tmp_path / f"new-{number}")
        with closing(open_local(tmp_path / f"new-{number}")) as restored:
            assert verify(restored.catalog, restored.blobs) == ()


def test_no_sweep_deletes_a_file_that_a_backup_is_about_to_read(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry, closing(open_local(folder)) as other:
        publish(registry, tmp_path, 3, VOICE)
        took = []

        def sweep(what: str, done: int, total: int) -> None:
            if not took:  # the catalog has been copied, and names the files of both
                other.adapters.delete(VOICE)
                took.append(collect_garbage(other, grace=timedelta(0)).deleted)

        create(registry, tmp_path / "backup", progress=sweep)
        assert took == [0]
        assert collect_garbage(other, grace=timedelta(0)).deleted
    restore(tmp_path / "backup", tmp_path / "new")
    with closing(open_local(tmp_path / "new")) as restored:
        pull(restored, "acme/voice", tmp_path / "pulled")


def test_a_later_backup_into_the_same_folder_adds_only_what_is_new(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        first = create(registry, tmp_path / "backups")
        publish(registry, tmp_path, 2)
        second = create(registry, tmp_path / "backups")
        assert (first.added, second.added, second.index.files) == (2, 1, 3)
        damaged = next((tmp_path / "backups" / "files" / "sha256").glob("*/*"))
        damaged.write_bytes(b"x" * damaged.stat().st_size)
        with pytest.raises(InvalidBackup, match="was changed, damaged or truncated"):
            check(tmp_path / "backups")
        assert create(registry, tmp_path / "backups", verify=True).added == 1
    restore(tmp_path / "backups", tmp_path / "new", snapshot=first.place.name)
    with closing(open_local(tmp_path / "new")) as restored:
        assert [one.number for one in restored.versions.list(TONE).items] == [1]
    with pytest.raises(NotFound, match="no backup 'none'"):
        restore(tmp_path / "backups", tmp_path / "other", snapshot="none")


def test_a_folder_of_something_else_gets_no_backup(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "adapter_config.json").write_text("{}")
    with closing(filled(folder, tmp_path)) as registry:
        with pytest.raises(Conflict, match="belong to no backup"):
            create(registry, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["adapter_config.json"]
        (tmp_path / "empty").mkdir()
        assert create(registry, tmp_path / "empty").added


def test_a_flipped_bit_anywhere_is_refused_before_any_change(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "backup.tar"
    with closing(filled(folder, tmp_path)) as registry:
        create(registry, place)
    sound = place.read_bytes()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for at in (*range(0, 1536, 97), *range(1536, len(sound), len(sound) // 25), len(sound) - 1):
        place.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises((InvalidBackup, CheckFailed)):
            restore(place, folder, replace=True)
    for cut in (0, 100, 512, 2000, len(sound) // 2, len(sound) - 1024, len(sound) - 1):
        place.write_bytes(sound[:cut])
        with pytest.raises(InvalidBackup):
            restore(place, tmp_path / "new")
        assert not (tmp_path / "new" / "catalog.sqlite").exists()
    place.write_bytes(sound + b"\0")
    with pytest.raises(InvalidBackup):
        restore(place, folder, replace=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_damaged_file_of_the_registry_stops_a_backup_unless_it_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        damaged = next((folder / "blobs" / "sha256").glob("*/*"))
        damaged.write_bytes(b"x" * damaged.stat().st_size)
        for place in ("backups", "backup.tar"):
            with pytest.raises(CorruptData, match="--skip-damaged"):
                create(registry, tmp_path / place)
            made = create(registry, tmp_path / place, skip_damaged=True)
            assert [digest.hex for digest in made.index.lacking] == [damaged.name]
            restore(tmp_path / place, tmp_path / f"new-{place}")
            with closing(open_local(tmp_path / f"new-{place}")) as restored:
                assert verify(restored.catalog, restored.blobs)


@KINDS
def test_a_file_that_is_moved_aside_during_a_backup_is_missed_or_read_again(
    place: str, folder: Path, tmp_path: Path
) -> None:
    """This is a repair during a backup: without a source of the file, the whole backup fails; with one, it is
    complete.
    """
    with closing(filled(folder, tmp_path)) as registry, closing(open_local(folder)) as other:
        publish(registry, tmp_path, 2)
        last = max(digest for digest in other.blobs.digests())
        data = other.blobs.read(last, 0, other.blobs.size(last))
        assert isinstance(other.blobs, LocalBlobs)
        path, moved = other.blobs.path_of(last), []

        def lose(what: str, done: int, total: int) -> None:
            if not moved:
                path.write_bytes(b"x" * len(data))
                moved.append(other.blobs.set_aside(last))

        def replace(what: str, done: int, total: int) -> None:
            lose(what, done, total)
            other.blobs.put(last, [data])

        with pytest.raises(CorruptData, match=r"is lost or damaged|changed while it was backed up"):
            create(registry, tmp_path / place, progress=lose)
        assert moved == [True]
        with pytest.raises((InvalidBackup, NotFound)):
            check(tmp_path / place)
        other.blobs.put(last, [data])
        moved.clear()
        create(registry, tmp_path / place, progress=replace)
        assert moved == [True]
    restore(tmp_path / place, tmp_path / "new")
    with closing(open_local(tmp_path / "new")) as restored:
        assert verify(restored.catalog, restored.blobs) == ()


@pytest.mark.parametrize("failpoint", ["restore.after_copy", "restore.before_rename"])
def test_a_killed_restore_leaves_the_registry_unchanged(failpoint: str, folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        create(registry, tmp_path / "backups")
        publish(registry, tmp_path, 2)
    for target, rows in ((folder, [2, 1]), (tmp_path / "new", None)):
        killed = subprocess.run(
            [
                *(sys.executable, "-m", "adaptry_cli", "restore", str(tmp_path / "backups")),
                *("--registry", str(target), "--replace"),
            ],
            env={"ADAPTRY_FAILPOINT": failpoint, "ADAPTRY_HOME": str(tmp_path)},
            check=False,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL
        if rows is None:
            assert not (target / "catalog.sqlite").exists()
        else:
            with closing(open_local(target)) as as_it_was:
                assert [one.number for one in as_it_was.versions.list(TONE).items] == rows
        restore(tmp_path / "backups", target, replace=True)
        assert not list(target.glob(".restore*"))
        with closing(open_local(target)) as restored:
            assert [one.number for one in restored.versions.list(TONE).items] == [1]
            assert verify(restored.catalog, restored.blobs) == ()


def test_a_registry_is_replaced_only_on_request_and_while_closed(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        create(registry, tmp_path / "backups")
        with pytest.raises(Conflict, match="--replace"):
            restore(tmp_path / "backups", folder)
        with pytest.raises(Conflict, match=r"has the registry in .* open; stop it"):
            restore(tmp_path / "backups", folder, replace=True)
        assert registry.adapters.get(TONE).versions == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(Conflict, match="holds other files"):
        restore(tmp_path / "backups", tmp_path / "mine")


def test_numbers_issued_after_the_backup_are_not_reused(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        create(registry, tmp_path / "backups")
        second = publish(registry, tmp_path, 2)
        seen = registry.aliases.move(TONE, "prod", second.digest, was=1)
        registry.aliases.move(TONE, "new", second.digest, was=None)
        publish(registry, tmp_path, 5, VOICE)
        newest = registry.events.read().seq
    shutil.copytree(folder, tmp_path / "lost")
    restore(tmp_path / "backups", folder, replace=True)  # the replaced catalog has the numbers that were used
    restore(tmp_path / "backups", tmp_path / "elsewhere")  # here they are unknown
    for place, number, voice in ((folder, 3, 2), (tmp_path / "elsewhere", 1002, 1)):
        with closing(open_local(place)) as restored:
            (prod,) = restored.aliases.list(TONE)
            assert (prod.number, prod.generation > seen.generation) == (1, True)
            with pytest.raises(Conflict, match="look again"):
                restored.aliases.move(TONE, "prod", prod.digest, was=seen.generation)
            assert restored.aliases.move(TONE, "new", prod.digest, was=None).generation > 1
            assert restored.events.read().seq > newest
            assert publish(restored, tmp_path, 7).number == number
            assert publish(restored, tmp_path, 8, VOICE).number == voice


def test_a_restore_begins_another_epoch_each_time(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        create(registry, tmp_path / "backups")
        epochs = {registry.events.read().epoch}
    for number in range(2):
        restored = restore(tmp_path / "backups", tmp_path / f"new-{number}")
        with closing(open_local(tmp_path / f"new-{number}")) as opened:
            assert opened.events.read().epoch == restored.epoch
        epochs.add(restored.epoch)
    assert len(epochs) == 3


@pytest.mark.parametrize(
    "keeps_key",
    [pytest.param(False, id="another key"), pytest.param(True, id="the same key", marks=pytest.mark.slow)],
)
def test_the_audit_log_records_that_a_restored_registry_signs_with_another_key(
    keeps_key: bool, folder: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    with closing(filled(folder, tmp_path)) as registry:
        old = registry.audit.checkpoint().key
        create(registry, tmp_path / "backups")
    restore(tmp_path / "backups", new)
    if keeps_key:
        shutil.copy(folder / "audit-key", new)
    with closing(open_local(new)) as restored:
        now = restored.audit.checkpoint()
        assert (now.key == old, now.unsealed) == (keeps_key, 0)
        replaced = restored.audit.list(AuditFilter(action="audit.replace_key")).items
        assert [one.before for one in replaced] == ([] if keeps_key else [{"key": old}])
        assert not verify_log(restored.audit, None).problems
    (
        new / "audit-key"
    ).unlink()  # once the restored registry is signed, only an administrator replaces its key
    with closing(open_local(new)) as restored:
        publish(restored, tmp_path, 2)
        assert restored.audit.checkpoint().key == now.key


def test_tokens_are_revoked_and_webhooks_disabled_unless_they_are_kept(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        registry.webhooks.add(WebhookRequest(namespace="acme", url="https://ci.example.com/hook"))
        secret = create_token(registry.catalog, "ada", "writer", ("acme",), None)
        code = registry.principals.invite(InvitationRequest(name="ada")).code
        create(registry, tmp_path / "backups")
    restore(tmp_path / "backups", tmp_path / "kept", keep_tokens=True)
    restore(tmp_path / "backups", tmp_path / "revoked")
    with closing(Catalog.open(tmp_path / "kept" / "catalog.sqlite")) as catalog:
        assert identify(catalog, secret).name == "ada"
        assert accept(catalog, code, "first").principal == "ada"
    with closing(Catalog.open(tmp_path / "revoked" / "catalog.sqlite")) as catalog:
        with pytest.raises(Unauthenticated):
            identify(catalog, secret)
        with pytest.raises(Unauthenticated):
            accept(catalog, code, "first")
    for name, reason in (("kept", None), ("revoked", "the registry was restored from a backup")):
        with closing(open_local(tmp_path / name)) as opened:
            assert [one.disabled_reason for one in opened.webhooks.list()] == [reason]


def test_withdrawals_in_the_replaced_catalog_are_kept_as_quarantine(folder: Path, tmp_path: Path) -> None:
    with closing(filled(folder, tmp_path)) as registry:
        first = registry.versions.get(Ref.parse("acme/tone@1"))
        create(registry, tmp_path / "backups")
        registry.versions.set_state(
            TONE, first.digest, StateChange(state="revoked", reason="it leaks"), was=0
        )
    restored = restore(tmp_path / "backups", folder, replace=True)
    assert restored.held_back == (f"acme/tone@{first.digest.brief}",)
    with closing(open_local(folder)) as opened:
        found = opened.versions.get(Ref.parse("acme/tone@1"))
        assert found.state == "quarantined"
        assert found.last_state_change is not None
        assert "revoked before the registry was restored from a backup" in found.last_state_change.reason


def test_a_postgresql_registry_refuses_backup_but_begins_an_epoch(
    postgres: PostgresServer, folder: Path, tmp_path: Path
) -> None:
    with closing(open_local(folder, catalog=postgres.database())) as registry:
        version = publish(registry, tmp_path, 1)
        seen = registry.aliases.move(TONE, "prod", version.digest, was=None)
        before = registry.events.read()
        with pytest.raises(CheckFailed, match="pg_dump"):
            create(registry, tmp_path / "backups")
        with pytest.raises(CheckFailed, match="pg_restore"):
            restore(tmp_path / "backups", folder)
    shown = CliRunner().invoke(main, ["restore", "--epoch-only", "--registry", str(folder)])
    assert (shown.exit_code, "began" in shown.output) == (0, True), shown.output
    with closing(open_local(folder)) as registry:
        after = registry.events.read()
        assert (after.epoch != before.epoch, after.seq > before.seq + 1_000_000) == (True, True)
        (prod,) = registry.aliases.list(TONE)
        assert prod.generation > seen.generation
        assert publish(registry, tmp_path, 2).number == 1002
