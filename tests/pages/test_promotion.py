"""Moving an alias in a browser: conditions, rights, and conflicts with a concurrent move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.pages.browser import Browser
from tests.pages.promotion_scene import PromotionScene, make_scene
from tests.pages.statements import statements_of

from adaptry.core.errors import NotFound
from adaptry.core.refs import Ref
from adaptry.operations.promotion import find_rollback
from adaptry.registry.records import StateChange
from adaptry_api.pages.promotion_page import approval_counts
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

ACTIONS = ("promote", "override", "approve", "withdraw", "rollback")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Shared by the tests of this file, each of which uses a separate namespace."""
    is_postgres = request.param == "postgres"
    catalog = request.getfixturevalue("postgres").database() if is_postgres else None
    settings = ServerSettings(data=tmp_path_factory.mktemp("promotion"), catalog=catalog)
    with ExitStack() as at_the_end, running_server(settings, at_the_end.callback) as started:
        yield started


@pytest.fixture
def scene(server: Server, tmp_path: Path) -> PromotionScene:
    return make_scene(server, tmp_path)


@pytest.fixture(scope="module")
def untouched(server: Server, tmp_path_factory: pytest.TempPathFactory) -> PromotionScene:
    """A scene for tests that change nothing."""
    return make_scene(server, tmp_path_factory.mktemp("untouched"))


def approve(scene: PromotionScene, name: str, number: int) -> Browser:
    """A member of the group approves on the page."""
    browser = scene.person(name)
    scene.server.registry().principals.set_membership(scene.group, name, True)
    answer = browser.post(f"{scene.alias}/approve", scene.fields(number))
    assert (answer.status, answer.headers["Location"]) == (303, scene.promotion(number))
    return browser


def test_unmet_conditions_are_shown_with_their_numbers_and_no_button_moves_the_alias(
    untouched: PromotionScene,
) -> None:
    text = untouched.person("olga").get(untouched.promotion(3)).body.decode()
    for part in ("accuracy is 0.5", "only 0 of 2 conditions are met", "0 of 1 needed"):
        assert part in text, part
    assert f'action="{untouched.alias}/promote"' not in text
    assert f'action="{untouched.alias}/override"' in text


def test_the_page_names_the_workers_that_will_switch(untouched: PromotionScene) -> None:
    text = untouched.person("olga").get(untouched.promotion(2)).body.decode()
    effect = text[text.index('id="effect"') : text.index('id="conditions"')]
    assert "1 worker serves version 1 as" in effect
    assert "will switch to version 2" in effect
    assert f"gpu-{untouched.name.namespace}" in effect


def test_an_approval_on_the_page_counts_and_can_be_withdrawn(scene: PromotionScene) -> None:
    mia = approve(scene, "mia", 2)
    page = scene.person("olga").get(f"{scene.promotion(2)}&format=json").json
    assert [one["by"] for one in page["approvals"]] == ["mia"]
    assert page["decision"]["verdict"] == "met"
    assert "Withdraw my approval" in mia.get(scene.promotion(2)).body.decode()
    assert mia.post(f"{scene.alias}/withdraw", scene.fields(2)).status == 303
    assert scene.person("olga").get(f"{scene.promotion(2)}&format=json").json["approvals"] == []


def test_an_alias_whose_conditions_are_met_moves_and_the_history_shows_how(scene: PromotionScene) -> None:
    approve(scene, "mia", 2)
    olga = scene.person("olga")
    answer = olga.post(f"{scene.alias}/promote", scene.fields(2))
    assert (answer.status, answer.headers["Location"]) == (303, scene.alias)
    assert scene.prod[0] == 2
    moves = olga.get(f"{scene.alias}?format=json").json["moves"]
    assert [(one["number"], one["was_number"], one["verdict"], one["by"]) for one in moves] == [
        (2, 1, "met", "olga"),
        (1, None, None, "root"),
    ]


def test_an_alias_whose_conditions_are_not_met_stays_and_the_page_says_why(untouched: PromotionScene) -> None:
    answer = untouched.person("olga").post(f"{untouched.alias}/promote", untouched.fields(3))
    assert answer.status == 422
    assert "not all of its conditions are met" in answer.body.decode()
    assert "accuracy is 0.5" in answer.body.decode()
    assert untouched.prod[0] == 1


def test_an_override_needs_a_reason_and_a_right_and_is_recorded(
    scene: PromotionScene,
) -> None:
    editor = scene.person("edna", "maintainer")
    assert f'action="{scene.alias}/override"' not in editor.get(scene.promotion(3)).body.decode()
    refused = editor.post(f"{scene.alias}/override", scene.fields(3, reason="it is urgent"))
    assert (refused.status, scene.prod[0]) == (403, 1)
    olga = scene.person("olga")
    nameless = olga.post(f"{scene.alias}/override", scene.fields(3, reason=" "))
    assert (nameless.status, scene.prod[0]) == (400, 1)
    assert "3 to 1024 characters" in nameless.body.decode()
    reason = "<script>alert(1)</script> 測試 " + "ж" * 900  # long, and even longer in a form's encoding
    assert olga.post(f"{scene.alias}/override", scene.fields(3, reason=reason)).status == 303
    assert scene.prod[0] == 3
    move = olga.get(f"{scene.alias}?format=json").json["moves"][0]
    assert (move["verdict"], move["reason"]) == ("overridden", reason)
    assert "<script>alert" not in olga.get(scene.alias).body.decode()


@pytest.mark.parametrize("action", ["promote", "override", "approve"])
def test_a_concurrent_move_is_shown_and_not_overwritten(scene: PromotionScene, action: str) -> None:
    olga = scene.person("olga")
    opened = scene.fields(2, reason="it is urgent")
    bert = scene.person("bert")
    assert bert.post(f"{scene.alias}/override", scene.fields(3, reason="a demonstration")).status == 303
    answer = olga.post(f"{scene.alias}/{action}", opened)
    text = answer.body.decode()
    assert (answer.status, scene.prod[0]) == (409, 3)
    notice = text[text.index('role="alert"') : text.index('id="effect"')]
    assert "has moved since you opened this page" in notice
    assert "bert" in notice
    assert "from version 1" in notice
    assert f'value="{scene.prod[1]}"' in text  # the next attempt starts from its current version
    assert scene.server.registry().policies.approvals(scene.name, "prod") == ()


def test_a_rollback_goes_to_the_version_that_the_page_names_or_nowhere(scene: PromotionScene) -> None:
    olga = scene.person("olga")
    olga.post(f"{scene.alias}/override", scene.fields(3, reason="a demonstration"))
    page = olga.get(f"{scene.alias}/rollback")
    assert "Roll back to version 1" in page.body.decode()
    opened = scene.fields(1)
    olga.post(f"{scene.alias}/override", scene.fields(2, reason="a demonstration"))
    late = olga.post(f"{scene.alias}/rollback", opened)
    assert (late.status, scene.prod[0]) == (409, 2)
    assert "has moved since you opened this page" in late.body.decode()
    assert olga.post(f"{scene.alias}/rollback", scene.fields(3)).status == 303
    assert scene.prod[0] == 3
    moves = olga.get(f"{scene.alias}?format=json").json["moves"]
    assert [one["verdict"] for one in moves] == ["rollback", "overridden", "overridden", None]


def test_an_alias_that_never_moved_has_no_rollback_and_the_page_shows_that(untouched: PromotionScene) -> None:
    text = untouched.person("olga").get(f"{untouched.alias}/rollback").body.decode()
    assert "has not moved since it was set to version 1" in text
    assert "<form" not in text[text.index("<main") : text.index("</main")]


def test_a_rollback_to_a_revoked_version_names_an_earlier_good_one(scene: PromotionScene) -> None:
    olga = scene.person("olga")
    for number in (2, 3):
        olga.post(f"{scene.alias}/override", scene.fields(number, reason="a demonstration"))
    change = StateChange(state="revoked", reason="it leaks")
    scene.server.registry().versions.set_state(scene.name, scene.versions[1].digest, change, 0)

    text = olga.get(f"{scene.alias}/rollback").body.decode()
    seen_by_reader = scene.person("rita", "viewer").get(f"{scene.alias}/rollback").body.decode()

    assert "prod cannot be rolled back" in text
    assert "the last good version before it is 1" in text
    assert "to move it to any earlier version" in text
    assert "to move it to any earlier version" not in seen_by_reader


def test_the_search_for_the_last_move_stops_after_a_limited_number_of_events(scene: PromotionScene) -> None:
    olga = scene.person("olga")
    olga.post(f"{scene.alias}/override", scene.fields(3, reason="a demonstration"))
    registry, three = scene.server.registry(), scene.versions[2]
    for step in range(4):
        registry.metrics.log(Ref.of_revision(scene.name, three.digest), {"loss": float(step)})
    assert find_rollback(registry, scene.name, "prod").version.number == 1
    assert find_rollback(registry, scene.name, "prod", 100).version.number == 1
    with pytest.raises(NotFound, match="not among the newest 3 events"):
        find_rollback(registry, scene.name, "prod", 3)


def test_a_reader_sees_the_conditions_and_no_button(untouched: PromotionScene) -> None:
    reader = untouched.person("rita", "viewer")
    text = reader.get(untouched.promotion(2)).body.decode()
    assert "accuracy is 0.95" in text
    assert 'method="post"' not in text[text.index("<main") : text.index("</main")]
    assert "/promote" not in reader.get(f"/{untouched.name}").body.decode()
    for action in ACTIONS:
        answer = reader.post(f"{untouched.alias}/{action}", untouched.fields(2, reason="why not"))
        assert answer.status in (403, 404), action
    assert untouched.prod == (1, untouched.prod[1])


def test_a_form_of_another_site_moves_and_approves_nothing(untouched: PromotionScene) -> None:
    olga, before = untouched.person("olga"), untouched.prod
    for action in ACTIONS:
        answer = olga.post(
            f"{untouched.alias}/{action}",
            untouched.fields(2, reason="why not"),
            Origin="https://evil.example",
            Sec_Fetch_Site="cross-site",
        )
        assert (answer.status, untouched.prod) == (403, before), action
    assert untouched.server.registry().policies.approvals(untouched.name, "prod") == ()


def test_malformed_fields_of_a_form_are_refused(untouched: PromotionScene) -> None:
    olga = untouched.person("olga")
    for number, generation in (
        ("", ""),
        ("2", "x"),
        ("²", "1"),
        ("-1", "1"),
        ("9" * 40, "1"),
        ("2", "9" * 40),
        ("0", "1"),
        ("9" * 18, "1"),
    ):
        fields = {"number": number, "generation": generation}
        assert olga.post(f"{untouched.alias}/promote", fields).status in (400, 404), fields
    assert untouched.prod[0] == 1


def test_an_invalid_alias_is_refused(untouched: PromotionScene) -> None:
    olga = untouched.person("olga")
    for alias in ("latest", "7", "..", "a" * 100, "<script>", ""):
        answer = olga.get(f"/-/adapters/{untouched.name}/2/promote?alias={alias}")
        assert answer.status == 400, alias
        assert "<script>" not in answer.body.decode()


def test_a_version_that_was_withdrawn_is_not_promoted_and_the_page_says_why(scene: PromotionScene) -> None:
    two = scene.versions[1]
    change = StateChange(state="revoked", reason="it leaks")
    scene.server.registry().versions.set_state(scene.name, two.digest, change, 0)
    text = scene.person("olga").get(scene.promotion(2)).body.decode()
    assert "revoked" in text
    assert f'action="{scene.alias}/promote"' not in text
    assert f'action="{scene.alias}/override"' not in text
    assert "stays at version 1" in text
    assert "will switch" not in text
    assert "adaptry promote" not in text
    assert scene.person("olga").post(f"{scene.alias}/promote", scene.fields(2)).status == 409


def test_the_history_of_an_alias_is_csv_too(untouched: PromotionScene) -> None:
    answer = untouched.person("olga").get(f"{untouched.alias}?format=csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    head, row = answer.body.decode().split()
    assert head == "version,was,at,until,by,verdict,reason"
    assert row.startswith("1,,20")


def test_the_needed_approvals_are_read_from_simple_conditions(untouched: PromotionScene) -> None:
    registry, two = untouched.server.registry(), untouched.versions[1]
    for condition, needed in (
        ('approvals("GROUP") >= 2', 2),
        ("approvals(group='GROUP') > 2", 3),
        ('approvals("GROUP") >= 2 || metric("accuracy") > 1', None),
    ):
        text = condition.replace("GROUP", untouched.group).replace("'", '"')
        policy = f"alias: prod\nrequire:\n  - '{text}'\n"
        decision = registry.policies.evaluate(untouched.name, "prod", two.digest, policy=policy)
        assert [one.needed for one in approval_counts(decision)] == [needed], condition


def test_a_page_about_a_move_reads_the_database_a_bounded_number_of_times(untouched: PromotionScene) -> None:
    browser = untouched.person("olga")
    for address, most in (
        (untouched.promotion(2), 45),
        (untouched.alias, 30),
        (f"{untouched.alias}/rollback", 30),
    ):
        statements = statements_of(browser, address)
        assert 0 < len(statements) <= most, "\n".join(statements)
