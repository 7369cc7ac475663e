"""Promises about search and metrics: the results of each term, their order, and that unreadable versions are
not found.
"""

from __future__ import annotations

import math

import pytest

from adaptry.core.errors import Invalid, InvalidQuery, NotFound, PermissionDenied
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

VOICE = AdapterName.parse("acme/voice-over")
FINDS = {
    "": ["voice-over@1", "tone@2", "tone@1"],
    "base:org/tiny": ["tone@2", "tone@1"],
    "base:org/*": ["voice-over@1", "tone@2", "tone@1"],
    "base:org/tin": [],
    "method:lora": ["voice-over@1", "tone@2", "tone@1"],
    "method:LORA": ["voice-over@1", "tone@2", "tone@1"],
    "method:ia3": [],
    "rank<=8": ["tone@2", "tone@1"],
    "rank=4": ["tone@1"],
    "rank!=4": ["voice-over@1", "tone@2"],
    "rank>8": ["voice-over@1"],
    "rank>8.5": ["voice-over@1"],
    "rank<=8.5": ["tone@2", "tone@1"],
    "rank=4.5": [],
    "rank!=4.5": ["voice-over@1", "tone@2", "tone@1"],
    "-rank=4.5": ["voice-over@1", "tone@2", "tone@1"],
    "rank<1e300 size<1e300": ["voice-over@1", "tone@2", "tone@1"],
    "rank>1e300": [],
    "rank=1e10": [],
    "rank>-1e300 size>=-1e300": ["voice-over@1", "tone@2", "tone@1"],
    "module:k_proj": ["voice-over@1"],
    "module:k_*": ["voice-over@1"],
    "module:q_proj -module:k_proj": ["tone@2", "tone@1"],
    "metric.accuracy>=0.9": ["tone@2"],
    "max:metric.accuracy>=0.9": ["tone@2", "tone@1"],
    "min:metric.accuracy<0.6": ["tone@1"],
    "metric.unknown>0": [],
    "alias:prod": ["tone@1"],
    "-alias:prod": ["voice-over@1", "tone@2"],
    "tag:speech": ["voice-over@1"],
    "speech": ["voice-over@1"],
    "DUBBED films": ["voice-over@1"],
    "spee*": ["voice-over@1"],
    "-speech": ["tone@2", "tone@1"],
    "tag:spe*": ["voice-over@1"],
    "name:acme/tone": ["tone@2", "tone@1"],
    "name:tone": ["tone@2", "tone@1"],
    "name:acme/vo*": ["voice-over@1"],
    "namespace:acme": ["voice-over@1", "tone@2", "tone@1"],
    "version>=2": ["tone@2"],
    "state:active": ["voice-over@1", "tone@2", "tone@1"],
    "dubbing": ["voice-over@1"],
    "DUBBING films": ["voice-over@1"],
    "dub*": ["voice-over@1"],
    "dub": [],
    "voice-over": ["voice-over@1"],
    "-dubbing": ["tone@2", "tone@1"],
    "base:org/tiny rank<=8 module:q_proj metric.accuracy>=0.9 method:lora": ["tone@2"],
    "tag:speech OR rank=4": ["voice-over@1", "tone@1"],
    "rank=8 tag:speech OR alias:prod": ["tone@1"],
    "rank=8 (tag:speech OR alias:prod OR version>1)": ["tone@2"],
    "-(tag:speech OR rank=4)": ["tone@2"],
    "NOT tag:speech AND NOT rank=4": ["tone@2"],
    "alpha>=1": ["voice-over@1", "tone@2", "tone@1"],
    "has:metric.accuracy": ["tone@2", "tone@1"],
    "has:alias OR has:tag": ["voice-over@1", "tone@1"],
    "has:eval": [],
    "finding:base_unknown": ["voice-over@1", "tone@2", "tone@1"],
    "finding:shape_mismatch": [],
    "findings>0": ["voice-over@1", "tone@2", "tone@1"],
    "created>=1d": ["voice-over@1", "tone@2", "tone@1"],
    "created<2020-06 OR updated<2020": [],
    "fits:vllm,max_lora_rank=8": ["tone@2", "tone@1"],
    "-fits:vllm,max_lora_rank=8": ["voice-over@1"],
    "loaded:*": [],
    "size>1gb": [],
    "parameters>=1": ["voice-over@1", "tone@2", "tone@1"],
}
"""Queries on `searchable_versions`, and their results."""


class SearchContract(ContractFixtures):
    """`search`, `metrics.log`, `metrics`."""

    def test_a_query_finds_the_matching_versions_newest_first(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        searchable_versions(registry, lora)

        def found(query: str) -> list[str]:
            """The versions on all pages: on a slow machine, a page has few versions if the query needs
            engines' verdicts.
            """
            items = iter_items(lambda cursor: registry.versions.search(query, cursor))
            return [f"{item.name.name}@{item.number}" for item in items]

        assert {query: found(query) for query in FINDS} == FINDS

    def test_a_search_as_json_equals_its_page(self, registry: Registry, lora: MakeLora) -> None:
        searchable_versions(registry, lora)
        for query in ("", "base:org/tiny", "metric.accuracy>=0.9", "rank>1e300"):
            page = registry.versions.search(query, None, 2)
            assert (
                registry.versions.search_json(query, None, 2) == page.model_dump_json(by_alias=True).encode()
            )

    @pytest.mark.parametrize(
        "query",
        [
            *("colour:red", "rank<=many", "rank<>3", 'base:"org', "metric.x>=", "tag:", "x" * 1025),
            *("digest:prod", "digest:", "parent:abc*", "parent:sha256:0123456789ab", "digest:" + "0" * 65),
            *("(tone", "tone)", "()", "tone OR", "AND tone", "NOT", "-", "created=7d", "created>=2026-13"),
            *("eval.gsm8k>=0.5", "metric.accuracy", "has:colour", "fits:", "fits:vlm", "fits:vllm OR tone"),
            *("(" * 200 + "tone" + ")" * 200, "created>=99999999d", "updated>=9999-99"),
        ],
    )
    def test_a_malformed_query_has_a_reason(self, registry: Registry, query: str) -> None:
        with pytest.raises(InvalidQuery):
            registry.versions.search(query)

    @pytest.mark.parametrize(
        ("query", "nearest"),
        [
            ("lisence:mit", "licence"),
            ("creatd>=2026-01-01", "created"),
            ("modul:q_proj", "module"),
            ("has:metrics", "has:metric"),
            ("fits:vlm", "vllm"),
        ],
    )
    def test_an_unknown_field_is_an_error_that_names_the_nearest(
        self, registry: Registry, query: str, nearest: str
    ) -> None:
        with pytest.raises(InvalidQuery, match=f"did you mean {nearest}"):
            registry.versions.search(f"rank<=8 OR ({query} tone)" if "fits" not in query else query)

    def test_search_results_have_the_requested_order(self, registry: Registry, lora: MakeLora) -> None:
        searchable_versions(registry, lora)

        def ordered(sort: str, reverse: bool = False) -> list[str]:
            found = iter_items(
                lambda cursor: registry.versions.search("", cursor, 2, sort=sort, reverse=reverse)
            )
            return [f"{item.name.name}@{item.number}" for item in found]

        assert ordered("rank") == ordered("size") == ["voice-over@1", "tone@2", "tone@1"]
        assert ordered("rank", reverse=True) == ["tone@1", "tone@2", "voice-over@1"]
        assert ordered("name") == ["tone@2", "tone@1", "voice-over@1"]
        assert ordered("metric.accuracy") == ["tone@2", "tone@1", "voice-over@1"]
        assert ordered("metric.accuracy", reverse=True) == ["tone@1", "tone@2", "voice-over@1"]
        with pytest.raises(Invalid, match="sort key"):
            registry.versions.search("", sort="colour")
        cursor = registry.versions.search("", limit=1, sort="rank").next
        with pytest.raises(InvalidQuery, match="cursor"):
            registry.versions.search("", cursor, sort="size")

    def test_a_revision_is_found_by_digest_under_every_name_it_has(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first = push(registry, lora(1), TONE).version
        push(registry, lora(2), TONE)
        push(registry, lora(1), VOICE)
        for text in (
            f"digest:{first.digest}",
            f"digest:{first.digest.hex[:12]}*",
            f"digest:{first.digest.hex}",
        ):
            assert [str(item.name) for item in registry.versions.search(text).items] == [
                str(VOICE),
                str(TONE),
            ]
        assert [
            item.number for item in registry.versions.search(f"-digest:{first.digest} name:tone").items
        ] == [2]
        assert registry.versions.search(f"digest:{'0' * 64}").items == ()

    def test_derived_versions_are_found_by_their_parent(self, registry: Registry, lora: MakeLora) -> None:
        one, other = (push(registry, lora(seed), TONE).version.digest for seed in (1, 2))
        push(registry, lora(3), VOICE, parents=(one, other))
        push(registry, lora(4), VOICE, parents=(other,))
        found = {
            parent: [item.number for item in registry.versions.search(f"parent:{parent}").items]
            for parent in (str(one), str(other), f"{other.hex[:12]}*")
        }
        assert found == {str(one): [1], str(other): [2, 1], f"{other.hex[:12]}*": [2, 1]}
        assert registry.versions.search(f"parent:{'0' * 64}").items == ()

    def test_hidden_relatives_are_not_revealed(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        parent = push(make_registry(ADA), lora(1), TONE).version.digest
        child = push(make_registry(ADA), lora(2), TONE, parents=(parent,)).version.digest
        for query in (f"digest:{child}", f"parent:{parent}"):
            assert [item.number for item in make_registry(RON).versions.search(query).items] == [2]
            assert make_registry(EVE).versions.search(query).items == ()

    @pytest.mark.parametrize(
        "query", ["name:%' OR 1", "name:_one", "tag:%", "name:t%", '"; DROP TABLE versions"']
    )
    def test_sql_syntax_in_a_query_has_no_effect(
        self, registry: Registry, lora: MakeLora, query: str
    ) -> None:
        searchable_versions(registry, lora)
        assert registry.versions.search(query).items == ()

    def test_pages_follow_each_other_without_gap_or_repetition(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        for seed in range(5):
            push(registry, lora(seed), TONE)
        numbers, cursor = [], None
        while True:
            page = registry.versions.search("method:lora", cursor, limit=2)
            numbers += [item.number for item in page.items]
            cursor = page.next
            if cursor is None:
                break
        assert numbers == [5, 4, 3, 2, 1]

    def test_a_cursor_of_another_query_is_refused(self, registry: Registry, lora: MakeLora) -> None:
        for seed in range(3):
            push(registry, lora(seed), TONE)
        cursor = registry.versions.search("method:lora", limit=1).next
        for query, forged in (("rank<=8", cursor), ("method:lora", "AAAA"), ("method:lora", "")):
            with pytest.raises(InvalidQuery, match="cursor"):
                registry.versions.search(query, forged)

    def test_an_edited_text_is_found_immediately_and_the_old_one_no_longer(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        searchable_versions(registry, lora)
        registry.adapters.edit(VOICE, AdapterEdit(tags=("audio",), description="A narrator"))
        assert [
            len(registry.versions.search(query).items) for query in ("tag:speech", "speech", "dubbing")
        ] == [
            0,
            0,
            0,
        ]
        assert [len(registry.versions.search(query).items) for query in ("tag:audio", "narrator")] == [1, 1]

    def test_a_moved_alias_is_found_where_it_points(self, registry: Registry, lora: MakeLora) -> None:
        searchable_versions(registry, lora)
        second = registry.versions.get(Ref.parse("acme/tone@2"))
        registry.aliases.move(TONE, "prod", second.digest, was=1)
        assert [item.number for item in registry.versions.search("alias:prod").items] == [2]
        registry.aliases.remove(TONE, "prod", was=2)
        assert registry.versions.search("alias:prod").items == ()

    def test_a_renamed_or_deleted_adapter_is_not_found_under_its_old_name(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        searchable_versions(registry, lora)
        registry.adapters.rename(VOICE, AdapterName.parse("other/speaker"))
        assert registry.versions.search("name:acme/voice-over").items == ()
        assert len(registry.versions.search("name:other/speaker namespace:other speaker").items) == 1
        registry.adapters.delete(AdapterName.parse("other/speaker"))
        assert registry.versions.search("speaker").items == ()

    def test_searches_find_only_readable_versions(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        searchable_versions(make_registry(ADA), lora)
        push(make_registry(EVE), lora(9), AdapterName.parse("evil/tone"))
        for query in ("", "method:lora", "rank=4", "name:tone", "-tag:x", "metric.accuracy>0", "alias:prod"):
            assert {item.name.namespace for item in make_registry(EVE).versions.search(query).items} <= {
                "evil"
            }
            assert {item.name.namespace for item in make_registry(ADA).versions.search(query).items} <= {
                "acme"
            }

    def test_every_value_of_a_metric_is_stored_and_the_newest_counts(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        for value in (0.5, 0.9, 0.7):
            registry.metrics.log(Ref(TONE), {"accuracy": value})
        assert [info.value for info in registry.metrics.list(Ref(TONE))] == [0.5, 0.9, 0.7]
        assert registry.versions.get(Ref(TONE)).metrics == {"accuracy": 0.7}

    @pytest.mark.parametrize(
        "metrics",
        [
            {},
            {"accuracy": math.nan},
            {"accuracy": math.inf},
            {"passed": True},
            {"a b": 1.0},
            {"": 1.0},
            {"x" * 65: 1.0},
        ],
    )
    def test_a_metric_that_is_not_a_finite_number_is_refused(
        self, registry: Registry, lora: MakeLora, metrics: dict[str, float]
    ) -> None:
        push(registry, lora(), TONE)
        with pytest.raises(Invalid):
            registry.metrics.log(Ref(TONE), metrics)
        assert registry.metrics.list(Ref(TONE)) == ()

    def test_a_metric_may_have_any_valid_name(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(), TONE)
        named = dict.fromkeys(
            ["at", "by", "detail", "kind", "line", "number", "self", "tx", "eval/loss"], 0.5
        )
        registry.metrics.log(Ref(TONE), named)
        assert registry.versions.get(Ref(TONE)).metrics == named
        assert registry.adapters.history(TONE).items[0].detail == dict.fromkeys(named, "0.5")

    def test_only_writers_log_metrics(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        push(make_registry(ADA), lora(), TONE)
        with pytest.raises(PermissionDenied):
            make_registry(RON).metrics.log(Ref(TONE), {"accuracy": 1.0})
        with pytest.raises(NotFound):
            make_registry(EVE).metrics.log(Ref(TONE), {"accuracy": 1.0})


def searchable_versions(registry: Registry, lora: MakeLora) -> None:
    """Two versions of one adapter and one of another, which differ in every searchable field."""
    push(registry, lora(1, rank=4), TONE, options=PushOptions(metrics={"accuracy": 0.95}, alias="prod"))
    registry.metrics.log(Ref(TONE), {"accuracy": 0.5})
    push(registry, lora(2, rank=8), TONE, options=PushOptions(metrics={"accuracy": 0.92}))
    registry.adapters.create(
        VOICE, AdapterEdit(description="For dubbing foreign films", tags=("speech", "dubbed"))
    )
    push(registry, lora(3, rank=16, targets=("q_proj", "k_proj"), base_name="org/small"), VOICE)
