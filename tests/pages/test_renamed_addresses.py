"""Permalinks stay valid when an adapter is renamed: its former name in an address leads to the new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

OLD, NEW, OTHER = "acme/old", "acme/new", "acme/other"
ADDRESSES = (
    "/-/aliases/{name}/prod",
    "/-/adapters/{name}/1/promote?alias=staging",
    "/-/settings/adapters/{name}/policies",
    "/-/compare?ref={in_query}%40prod&ref=acme%2Fother%401",
    "/-/compare?ref=acme%2Fother%401&ref={in_query}%40sha256%3A{digest}&ref={in_query}%401",
    "/-/compare/weights?ref={in_query}%401&ref=acme%2Fother%401",
    "/-/combine?ref={in_query}%401&weight=0.7&ref=acme%2Fother%401&weight=0.3&method=ties",
)


def address_of(template: str, name: str, digest: Digest) -> str:
    return template.format(name=name, in_query=name.replace("/", "%2F"), digest=digest.hex)


def push_both(registry: Registry, folder: Path) -> Digest:
    """Returns the digest of the old adapter's version."""
    for seed, name in enumerate((OTHER, OLD)):
        made = open_dir(tiny_lora(folder / name, seed=seed))
        version = push(registry, made, name, options=PushOptions(alias="prod")).version
    return version.digest


@pytest.mark.parametrize("template", ADDRESSES)
def test_a_former_name_in_an_address_leads_readers_to_the_new_one(
    start: Callable[..., Server], tmp_path: Path, template: str
) -> None:
    server = start(anonymous_read=True)
    registry = server.registry()
    digest = push_both(registry, tmp_path)
    old, new = (address_of(template, name, digest) for name in (OLD, NEW))
    browser, stranger = Browser(server), Browser(server, token=None)
    assert browser.get(old).status == 200
    registry.adapters.rename(AdapterName.parse(OLD), AdapterName.parse(NEW))
    moved = browser.get(old)
    assert (moved.status, moved.headers["Location"]) == (307, new)
    followed = browser.get(new)
    assert followed.status == 200
    assert NEW in followed.body.decode()
    unseen, unknown = (stranger.get(one) for one in (old, address_of(template, "acme/never", digest)))
    assert (unseen.status, unseen.headers.get("Location")) == (unknown.status, None)


def test_an_error_that_no_rename_explains_stays_an_error(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    push_both(server.registry(), tmp_path)
    server.registry().adapters.rename(AdapterName.parse(OLD), AdapterName.parse(NEW))
    missing = (f"/-/adapters/{NEW}/7/promote", f"/-/compare?ref={NEW}@7&ref={OTHER}@1", "/-/aliases/a/b/c")
    assert [Browser(server).get(address).status for address in missing] == [404] * 3


def test_adapters_that_exchanged_names_are_found_by_their_new_names(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    adapters = server.registry().adapters
    push_both(server.registry(), tmp_path)
    for before, after in ((OLD, NEW), (OTHER, OLD), (NEW, OTHER)):
        adapters.rename(AdapterName.parse(before), AdapterName.parse(after))
    addresses = (f"/{OLD}", f"/{OTHER}", f"/-/adapters/{OLD}/7/promote", f"/{OTHER}?version=7", f"/{NEW}")
    assert [Browser(server).get(address).status for address in addresses] == [200, 200, 404, 404, 307]
