"""Settings pages for groups and members that need more than one page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.pages.browser import Browser

from adaptry.registry.access import MemberChange
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

GROUPS = "/-/settings/groups"
MEMBERS = "/-/settings/namespaces/acme/members"
PEOPLE = [f"user-{number:03}" for number in range(120)]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All are in the first of 30 groups, and members of `acme`."""
    with running_server(ServerSettings(data=tmp_path_factory.mktemp("crowd") / "data")) as server:
        registry = server.registry()
        for number in range(30):
            registry.principals.create_group(f"group-{number:02}")
        for name in PEOPLE:
            registry.principals.create("user", name)
            registry.principals.set_membership("group-00", name, True)
            registry.grants.set_member("acme", MemberChange(principal=name, role="viewer"))
        yield server


def following(text: str, words: str) -> str:
    """The address of the link with these words."""
    found = re.search(rf'href="([^"]+)">{words}', text)
    assert found, words
    return found[1].replace("&amp;", "&")


def test_a_page_of_groups_leads_to_the_next_and_a_large_group_to_all_of_its_members(crowd: Server) -> None:
    browser = Browser(crowd)
    first = browser.get(GROUPS).body.decode()
    assert "120 members" in first
    assert "user-049" in first
    assert "user-050" not in first
    assert ">group-19<" in first
    assert ">group-20<" not in first
    second = browser.get(following(first, "More groups")).body.decode()
    assert ">group-29<" in second
    assert "More groups" not in second
    members = browser.get(following(first, "All 120 members of group-00")).body.decode()
    assert "Members of group-00" in members
    assert "user-099" in members
    rest = browser.get(following(members, "More members")).body.decode()
    assert "user-119" in rest
    assert len(first) < 100_000


def test_a_member_on_a_later_page_is_taken_out_of_the_group_and_the_rest_stay(crowd: Server) -> None:
    browser = Browser(crowd)
    answer = browser.post(GROUPS, {"do": "remove", "group": "group-00", "principal": PEOPLE[-1]})
    assert answer.status == 303
    found = crowd.registry().principals.groups().items[0]
    assert (found.name, found.size) == ("group-00", 119)
    browser.post(GROUPS, {"do": "add", "group": "group-00", "principal": PEOPLE[-1]})


def test_members_are_listed_in_pages_and_removed_after_confirmation(crowd: Server) -> None:
    browser = Browser(crowd)
    first = browser.get(MEMBERS).body.decode()
    assert "user-049" in first
    assert "user-050" not in first
    later = following(first, "More members")
    second = browser.get(later).body.decode()
    assert "user-050" in second
    asked = next(
        link for link in re.findall(r'href="([^"]+confirm=remove[^"]+)"', second) if "user-060" in link
    )
    assert "Remove user-060 from the members?" in browser.get(asked.replace("&amp;", "&")).body.decode()
    assert browser.post(MEMBERS, {"do": "remove", "kind": "principal", "who": "user-060"}).status == 303
    page = browser.get(f"{later}&format=json").json
    assert "user-060" not in [one["principal"] for one in page["members"]["members"]]


def test_a_group_that_the_visitor_may_not_see_is_absent(crowd: Server) -> None:
    stranger = Browser(crowd, crowd.token("zoe", "viewer", ("acme",)))
    assert stranger.get(f"{GROUPS}?of=group-00").status == 404
    member = Browser(crowd, crowd.token("user-001", "viewer", ("acme",)))
    assert "user-000" in member.get(f"{GROUPS}?of=group-00").body.decode()
    assert member.get(f"{GROUPS}?of=group-00&cursor=nonsense").status == 400
