"""The promise about cursors: a forged one is `Invalid` in every listing, whatever position it contains."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adaptry.core.errors import Invalid, InvalidQuery
from adaptry.core.refs import Number, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobOrder
from adaptry.storage.catalog import cursors
from adaptry.testing.contract.fixtures import TONE, ContractFixtures, MakeLora

_KEYS = range(1, 40)  # the keys of rows that a forger tries, to find a row that is hidden from them
_NO_NUMBERS = (
    "x", "-1", "+1", " 1", "01", "1.0", "1e3", "0x1", "\u0661", "\u00b9", "1_0", "None", "1\n", "1\x00",
    str(2**63), str(2**64), "9" * 300,
)  # fmt: skip
_LAST = 2**31 - 1
_NO_TEXTS = ("\x00", "acme/\x00", "\n", "\u202e", "\x1b[31m", "\ufeff")

List = Callable[[str], object]


class CursorsContract(ContractFixtures):
    """Forges a cursor: anyone who knows the listing can compute its checksum."""

    def test_a_forged_cursor_is_refused_by_every_listing(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(), TONE)
        ref = Ref(TONE, Number(1))
        job = registry.jobs.submit(JobOrder(kind="verify", task={})).id
        by_number: list[tuple[List, list[str]]] = [
            (lambda cursor: registry.versions.list(TONE, cursor), [f"versions {key}" for key in _KEYS]),
            (lambda cursor: registry.adapters.history(TONE, cursor), [f"events {key}" for key in _KEYS]),
            (lambda cursor: registry.commits.list(TONE, "main", cursor), [f"commits {key}" for key in _KEYS]),
            (
                lambda cursor: registry.versions.inspect_tensors(ref, cursor),
                [f"tensors {key}" for key in _KEYS],
            ),
            (lambda cursor: registry.versions.search("method:lora", cursor), ["search method:lora"]),
            (registry.bases.list, ["bases"]),
            (lambda cursor: registry.jobs.list(None, cursor), ["jobs None"]),
            (lambda cursor: registry.jobs.log(job, cursor), [f"log {job}"]),
            (registry.tokens.list, ["tokens None None True False"]),
            (lambda cursor: registry.grants.list(None, None, cursor), ["grants None None True"]),
        ]
        by_name: list[tuple[List, list[str]]] = [
            (lambda cursor: registry.adapters.list(None, cursor), ["adapters "]),
            (lambda cursor: registry.adapters.list("acme", cursor), ["adapters acme"]),
            (registry.workers.list, ["workers"]),
            (registry.principals.list, ["principals [] None  None"]),
            (lambda cursor: registry.uploads.list(None, cursor), ["uploads "]),
        ]
        for listings, places, good in ((by_number, _NO_NUMBERS, "1"), (by_name, _NO_TEXTS, "acme/zzz")):
            for ask, marks in listings:
                taken = [mark for mark in marks if _is_taken(ask, cursors.encode(good, mark))]
                # So that the next cursors are refused for their position, not for their checksum.
                assert len(taken) == 1, marks
                for place in places:
                    with pytest.raises((Invalid, InvalidQuery), match="cursor"):
                        ask(cursors.encode(place, taken[0]))
                ask(cursors.encode(_LAST, taken[0]))  # a valid position, although no row is there

        for sort in ("updated", "downloads"):
            for place in (
                "acme/tone",
                "1",
                "1 ",
                "x acme/tone",
                "-1 acme/tone",
                f"{2**31} acme/tone",
                "٣ a/b",
            ):
                forged = cursors.encode(place, f"adapters  by {sort} 0")
                with pytest.raises(Invalid, match="cursor"):
                    registry.adapters.list(None, forged, sort=sort)
        assert registry.adapters.list(
            None, cursors.encode("0 a/b", "adapters  by downloads 0"), sort="downloads"
        )


def _is_taken(ask: List, cursor: str) -> bool:
    try:
        ask(cursor)
    except (Invalid, InvalidQuery):
        return False
    return True
