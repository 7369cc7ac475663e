"""Faults of an S3 server or of the connection to it, as observed in practice.

Every fault is combined with every operation, at a randomly chosen request. The operation may fail with one of
our errors; it is then repeated and succeeds. In all cases, nothing acknowledged is lost, nothing wrong is
served, and a sweep leaves nothing behind.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.storage.blobs.s3 import S3Blobs, S3Location
from adaptry.testing.fault_proxy import run_proxy
from adaptry.testing.http_fault_proxy import HTTP_FAULTS, HttpFaultProxy, HttpMessage
from adaptry.testing.seaweed import CREDENTIALS, Seaweed

from .s3_fault_cases import LARGE, OPERATIONS, SEGMENT, SMALL, Case

QUICK = 24
EVERY = [(fault, operation) for fault in HTTP_FAULTS for operation in OPERATIONS]
random.Random(12).shuffle(EVERY)
MET = [
    pytest.param(*each, id="-".join(each), marks=[pytest.mark.heavy] if number >= QUICK else [])
    for number, each in enumerate(EVERY)
]

FLIPS = {"corrupted", "shortened"}
"""Faults that change bytes in transit: by the contract of the store, readers of a blob verify its digest."""


@pytest.fixture(scope="module")
def proxy(seaweed: Seaweed) -> Iterator[HttpFaultProxy]:
    where = urlsplit(seaweed.endpoint)
    with run_proxy(HttpFaultProxy(where.hostname or "", where.port or 0)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def healthy(seaweed: Seaweed) -> Iterator[S3Blobs]:
    """The store without the fault, shared by all tests: making a client takes longer than most operations."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setattr("adaptry.storage.blobs.s3.objects._READ_SECONDS", 1.0)
        patch.setattr("adaptry.storage.blobs.s3.staging.SEGMENT", SEGMENT)
        yield S3Blobs(S3Location.parse(seaweed.new_location()))


@pytest.fixture(scope="module")
def spoiled(healthy: S3Blobs, proxy: HttpFaultProxy) -> S3Blobs:
    return S3Blobs(replace(healthy.location, endpoint=f"http://127.0.0.1:{proxy.port}"))


@pytest.fixture
def case(spoiled: S3Blobs, healthy: S3Blobs, proxy: HttpFaultProxy, tmp_path: Path) -> Iterator[Case]:
    made = Case(spoiled, tmp_path / "cache")
    made.fill(healthy)
    yield made
    proxy.disarm()
    for digest in set(healthy.digests()) - {Digest.of(SMALL), Digest.of(LARGE)}:
        healthy.delete(digest)


def from_the_nth(number: int) -> Callable[[HttpMessage], bool]:
    """Matches requests from that one on; an index beyond an operation's last request has no effect."""
    seen = 0

    def matches(request: HttpMessage) -> bool:
        nonlocal seen
        seen += 1
        return seen > number

    return matches


@pytest.mark.parametrize(("fault", "operation"), MET)
def test_a_temporary_fault_causes_no_loss_damage_or_leftovers(
    fault: str,
    operation: str,
    case: Case,
    healthy: S3Blobs,
    proxy: HttpFaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act, right = OPERATIONS[operation]
    drawn = random.Random(zlib.crc32(f"{fault} {operation}".encode()))
    proxy.arm_http(fault, times=1, matches=from_the_nth(drawn.choice((0, 0, 1, 2, 3, 5))))
    try:
        answer = act(case)
    except AdaptryError as refused:
        assert refused.message
        proxy.disarm()
        monkeypatch.setattr("adaptry.storage.blobs.s3.lease.LEASE_SECONDS", -1.0)
        assert act(case) == right
    else:
        assert answer == right or (fault in FLIPS and isinstance(answer, bytes))
    proxy.disarm()
    require_whole(case, healthy)
    require_swept(healthy, monkeypatch)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each != "tidy"])
@pytest.mark.parametrize("fault", ["cut_at_once", "slow_down"])
@pytest.mark.heavy
def test_a_permanent_fault_becomes_an_error(
    fault: str,
    operation: str,
    case: Case,
    proxy: HttpFaultProxy,
    healthy: S3Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy.arm_http(fault, times=None)
    with pytest.raises(Unavailable, match="try again"):
        OPERATIONS[operation][0](case)
    proxy.disarm()
    require_whole(case, healthy)
    require_swept(healthy, monkeypatch)


def require_whole(case: Case, healthy: S3Blobs) -> None:
    """Asserts that acknowledged blobs exist, and that every blob matches its digest."""
    found = {digest: b"".join(healthy.chunks(digest)) for digest in healthy.digests()}
    assert all(Digest.of(data) == digest for digest, data in found.items())
    assert found.items() >= case.acknowledged.items()


def require_swept(healthy: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asserts that a sweep a day later leaves only blobs."""
    monkeypatch.setattr("adaptry.storage.blobs.s3.lease.LEASE_SECONDS", -1.0)
    monkeypatch.setattr("adaptry.storage.blobs.s3.store._ABANDONED", -1.0)
    for key in tuple(healthy.stagings()):
        with healthy.staging(key) as staged:
            staged.discard()
    healthy.tidy()
    assert [item.key for item in healthy.objects.list_objects("") if not item.key.startswith("sha256/")] == []
    assert healthy.tidy() == 0
