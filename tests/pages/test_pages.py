"""The pages: their contents for each reader, headers and size, and that other addresses are unaffected."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Match
from tests.pages.browser import Browser, links_of
from tests.pages.sample_registry import BASE, LEGAL, TONE
from tests.pages.statements import statements_of

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.access import TokenRequest
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.testing.samples import tiny_lora
from adaptry_api.app import create_app
from adaptry_api.pages.card import render_card
from adaptry_api.pages.page_routes import PageRoute
from adaptry_api.pages.security import CONTENT_SECURITY_POLICY
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server

PAGES = (
    "/",
    "/?q=base:org/small-llama&sort=metric.accuracy",
    f"/{TONE}",
    f"/{TONE}?version=3",
    f"/{LEGAL}",
    f"/-/compare?ref={TONE}@5&ref={TONE}@4",
    f"/-/adapters/{TONE}/5/promote",
    f"/-/aliases/{TONE}/prod",
    f"/-/aliases/{TONE}/prod/rollback",
    f"/-/base?key={BASE}",
    "/-/bases",
    "/-/fleet",
    "/-/activity",
    "/-/jobs",
    "/-/combine",
    f"/-/combine?ref={TONE}@4&ref={TONE}@5&method=ties",
    "/-/settings",
    "/-/settings/tokens",
    "/-/settings/users",
    "/-/settings/groups",
    "/-/settings/issuers",
    "/-/settings/limits",
    "/-/settings/namespaces/acme/members",
    "/-/settings/namespaces/acme/members?confirm=remove&who=tom",
    "/-/settings/namespaces/acme/service-accounts",
    "/-/settings/namespaces/acme/policies",
    "/-/settings/namespaces/acme/webhooks",
    "/-/settings/namespaces/acme/webhooks/1",
    "/-/settings/namespaces/acme/limits",
    f"/-/settings/adapters/{TONE}/policies?history=prod",
    f"/-/settings/adapters/{TONE}/publishers",
)
PARTS = (f"/-/adapters/{TONE}/4/fit", f"/-/adapters/{TONE}/4/lineage", f"/-/base/copies?key={BASE}")


@pytest.mark.parametrize("address", [*PAGES, "/-/docs", "/-/sign-in", "/acme/none", *PARTS])
def test_every_page_has_the_strict_policy_and_no_inline_script_or_style(team: Server, address: str) -> None:
    answer = Browser(team).get(address)
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Cookie" in answer.headers["Vary"]
    assert answer.headers["Cache-Control"] == "private, no-store"
    text = answer.body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text)
    assert all(link.startswith("/") and not link.startswith("//") for link in links_of(answer))


@pytest.mark.parametrize("address", PAGES)
def test_a_page_with_its_initial_resources_is_small(team: Server, address: str) -> None:
    browser = Browser(team)
    page = browser.get(address)
    loaded = {link for link in links_of(page) if link.startswith("/-/static/")}
    total = len(page.body) + sum(len(browser.get(link).body) for link in loaded)
    assert 1 + len(loaded) + len(PARTS) < 10
    assert total < 200_000


@pytest.mark.slow
def test_every_link_of_a_page_works(team: Server) -> None:
    browser = Browser(team)
    pages = [browser.get(address) for address in PAGES]
    posted = {
        form for page in pages for form in re.findall(r'action="([^"]+)" method="post"', page.body.decode())
    }
    links = {link.replace("&amp;", "&") for page in pages for link in links_of(page) - posted}
    for address in links - {"/-/sign-out"}:
        assert browser.get(address).status == 200, address


def test_static_files_are_cached_permanently_at_content_addresses(team: Server) -> None:
    browser = Browser(team, None)
    address = next(link for link in links_of(browser.get("/-/sign-in")) if link.endswith("adaptry.css"))
    answer = browser.get(address)
    assert "immutable" in answer.headers["Cache-Control"]
    assert browser.get("/-/static/0000000000000000/adaptry.css").status == 404
    assert browser.get(address.replace("adaptry.css", "..%2Fhome.py")).status == 404


def test_the_page_of_an_adapter_shows_live_versions_workers_and_moves(team: Server) -> None:
    text = Browser(team).get(f"/{TONE}").body.decode()
    live = text[text.index("live-title") : text.index("versions-title")]
    assert "prod" in live
    assert "version 4" in live
    assert "gpu-1" in live
    assert "root" in live
    assert "<time" in live


def test_the_first_page_and_that_of_an_adapter_link_to_the_comparison_with_a_newer_version(
    team: Server,
) -> None:
    browser = Browser(team)
    first, adapter = (browser.get(address).body.decode() for address in ("/", f"/{TONE}"))
    assert f"/-/compare?ref={TONE}@4&amp;ref={TONE}@5" in first
    assert f"/-/compare?ref={TONE}@prod&amp;ref={TONE}@5" in adapter
    assert f"ref={TONE}@staging&amp;" not in adapter, "no version is newer"


def test_the_size_of_the_parameters_is_that_of_the_tensors_as_on_the_command_line(team: Server) -> None:
    spec = team.registry().versions.detail(Ref.parse(f"{TONE}@4")).spec
    text = Browser(team).get(f"/{TONE}?version=4").body.decode()
    assert (spec.parameters, spec.size) == (4096, 16384)
    assert '4,096 <span class="soft">in 16.4 kB' in text


def test_a_withdrawn_version_shows_its_reason_and_workers(team: Server) -> None:
    text = Browser(team).get(f"/{TONE}?version=3").body.decode()
    notice = text[text.index("Version 3 is revoked") : text.index("live-title")]
    assert "repeats names from the training data" in notice
    assert "gpu-2" in notice
    assert "acme/support-tone@4" in notice
    assert "adaptry pull acme/support-tone@3" not in text


def test_every_page_is_json_in_the_models_of_the_rest_interface_too(team: Server) -> None:
    browser = Browser(team)
    api = team.call("GET", f"/api/v1/adapters/{TONE}").json
    for page in (
        browser.get(f"/{TONE}?format=json").json,
        browser.get(f"/{TONE}", Accept="application/json").json,
    ):
        assert page["adapter"] == api
        assert page["shown"]["version"]["number"] == 4
    assert browser.get("/?q=name:support-tone&format=json").json["versions"]["items"]
    assert team.call("GET", f"/{TONE}?format=json").json["adapter"] == api  # with a token, without a session
    missing = browser.get("/acme/none?format=json")
    assert (missing.status, missing.headers["Content-Type"]) == (404, "application/problem+json")


def test_versions_are_csv_in_which_no_cell_begins_a_formula(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    made = open_dir(tiny_lora(tmp_path / "lora", base_name="=HYPERLINK(1)"))
    push(server.registry(), made, "acme/tone", options=PushOptions(metrics={"accuracy": -0.5}))
    answer = Browser(server).get("/?format=csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert (row["name"], row["base"], row["metric.accuracy"]) == ("acme/tone", "'=HYPERLINK(1)", "-0.5")


def test_a_malformed_query_is_explained_on_the_page(team: Server) -> None:
    answer = Browser(team).get("/?q=colour:red")
    assert answer.status == 400
    assert "unknown field" in answer.body.decode()


def test_a_facet_narrows_the_result_to_as_many_versions_as_it_counts(team: Server) -> None:
    browser = Browser(team)
    page = browser.get("/?format=json").json
    assert page["is_all"]
    for facet in page["facets"]:
        for value in facet["values"]:
            found = browser.get(f"/?format=json&q={value['q']}").json
            assert found["examined"] == value["count"], value


def test_an_unknown_sort_key_is_not_called_an_invalid_query(team: Server) -> None:
    answer = Browser(team).get("/?sort=bad")
    assert (answer.status, b"Invalid search" in answer.body) == (400, True)
    assert b"unknown sort key" in answer.body


def test_sorting_by_a_metric_puts_the_best_first_and_versions_without_it_last(team: Server) -> None:
    items = Browser(team).get("/?sort=metric.accuracy&format=json").json["versions"]["items"]
    values = [item["metrics"].get("accuracy") for item in items]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values == known + [None] * (len(values) - len(known))


def test_the_address_of_a_renamed_adapter_leads_to_its_new_name_for_its_readers(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(anonymous_read=True)
    registry = server.registry()
    push(registry, open_dir(tiny_lora(tmp_path / "lora")), "acme/old")
    registry.adapters.rename(AdapterName.parse("acme/old"), AdapterName.parse("acme/new"))
    moved = Browser(server).get("/acme/old?version=1&format=json")
    assert (moved.status, moved.headers["Location"]) == (307, "/acme/new?version=1&format=json")
    assert Browser(server).get("/acme/new?version=2").status == 404
    assert Browser(server, token=None).get("/acme/old").status == 404


def test_a_wrong_query_gives_no_empty_table(team: Server) -> None:
    answer = Browser(team).get("/?q=foo:bar&format=csv")
    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert "unknown field 'foo'" in answer.json["detail"]


def test_an_empty_registry_teaches_the_first_command(start: Callable[..., Server]) -> None:
    text = Browser(start()).get("/").body.decode()
    assert "adaptry push ./out acme/tone" in text


def test_a_user_without_a_role_is_not_advised_to_push(team: Server) -> None:
    registry = team.registry()
    registry.principals.create("user", "newcomer")
    token = registry.tokens.create(TokenRequest(name="laptop", principal="newcomer")).secret

    text = Browser(team, token).get("/").body.decode()

    assert "You have no role in any namespace yet" in text
    assert "adaptry member set NAMESPACE newcomer --role viewer" in text
    assert "adaptry push" not in text


def test_the_keyboard_scrolls_a_wide_block_of_code_in_a_card(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server, made = start(), tiny_lora(tmp_path / "lora")
    (made / "README.md").write_text("```\n" + "x" * 400 + "\n```\n\n<pre tabindex=7>\n\n`<pre>`")
    push(server.registry(), open_dir(made), "acme/tone")

    text = Browser(server).get("/acme/tone").body.decode()

    assert '<pre tabindex="0"><code>xxx' in text
    assert "tabindex=7>" not in text.replace("&lt;pre tabindex=7&gt;", "")


def test_anonymous_visitors_see_public_adapters_without_signing_in(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(anonymous_read=True)
    registry = server.registry()
    for name in ("acme/open", "acme/closed"):
        push(registry, open_dir(tiny_lora(tmp_path / name)), name)
    registry.adapters.edit(AdapterName.parse("acme/open"), AdapterEdit(visibility="public"))
    browser = Browser(server, None)
    assert browser.get("/acme/open").status == 200
    assert browser.get("/acme/closed").status == 404
    assert "acme/closed" not in browser.get("/").body.decode().replace("</strong>", "").replace(
        '<span class="soft">', ""
    )


SCRIPTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&#58;alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "<svg onload=alert(1)>",
    "![x](x){onerror=alert(1)}",
    '<a href="vbscript:x">x</a>',
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<style>*{color:red}</style>",
    "<math><mtext></mtext><mglyph><style></math>",
    "`</code><script>alert(1)</script>`",
    '"><script>alert(1)</script>',
    "{{ 7 * 7 }}{% raw %}",
    "<form action=https://evil.example><button>x</button></form>",
    "<base href=https://evil.example>",
    '![x](https://evil.example/x.png "onload=1")',
    "<details open ontoggle=alert(1)>",
)


def test_scripts_in_a_card_description_or_tag_never_run(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start()
    made = tiny_lora(tmp_path / "lora", base_name="<script>alert(1)</script>")
    (made / "README.md").write_text("\n\n".join(SCRIPTS))
    push(server.registry(), open_dir(made), "acme/tone")
    edit = AdapterEdit(description="<script>alert(1)</script>\u202e", tags=('"><script>alert(1)</script>',))
    server.registry().adapters.edit(AdapterName.parse("acme/tone"), edit)
    text = Browser(server).get("/acme/tone").body.decode() + Browser(server).get("/").body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=\"/-/static)", text)
    tags = re.findall(r"<[a-z][^>]*>", text)
    assert not [
        tag for tag in tags if re.search(r"\son\w+\s*=|javascript:|vbscript:|data:|srcdoc", tag, re.I)
    ]
    assert not re.search(r"<(style|iframe|math|base|object|embed)\b", text)
    assert not re.search(r"<img[^>]*evil", text)
    assert "{{ 7 * 7 }}" in text
    assert "\u202e" not in text


def test_the_headings_of_a_card_skip_no_level() -> None:
    html = render_card(b"# A\n### B\n## C\n##### D\n# E\n", {})
    assert re.findall(r"<h(\d)>(\w)", html) == [("3", "A"), ("4", "B"), ("4", "C"), ("5", "D"), ("3", "E")]
    assert re.findall(r"<(h\d)>", render_card(b"### A\n###### B\n", {})) == ["h3", "h4"]


@pytest.mark.slow
def test_an_unfilled_model_card_is_folded(start: Callable[..., Server], tmp_path: Path) -> None:
    """It is the Hub's template, which PEFT saves with every adapter."""
    card = pytest.importorskip("huggingface_hub").ModelCard.from_template(
        pytest.importorskip("huggingface_hub").ModelCardData(library_name="peft")
    )
    server = start()
    made = tiny_lora(tmp_path / "lora")
    pages = []
    for text in (str(card), str(card).replace("[More Information Needed]", "Speaks like a pirate.", 1)):
        (made / "README.md").write_text(text)
        push(server.registry(), open_dir(made), f"acme/tone{len(pages)}")
        pages.append(Browser(server).get(f"/acme/tone{len(pages)}").body.decode())

    unfilled, filled = (re.split("card-title", page)[-1].split("</section>")[0] for page in pages)

    assert "<details" in unfilled and "not filled in" in unfilled and "Out-of-Scope Use" in unfilled
    assert "<details" not in filled and "Speaks like a pirate." in filled


def test_no_page_takes_an_address_of_the_rest_interface_or_the_hub_protocol(tmp_path: Path) -> None:
    routes = create_app(ServerSettings(data=tmp_path / "data")).routes
    pages = [route for route in routes if isinstance(route, PageRoute)]
    others = [route for route in routes if isinstance(route, APIRoute) and not isinstance(route, PageRoute)]
    assert pages
    values = {"namespace": "acme", "name": "tone", "word": "gpt2", "path": "a/b", "path:path": "a/b"}
    for route in others:
        path = re.sub(r"\{([^}]*)\}", lambda found: values.get(found[1], "x"), route.path)
        for method in route.methods or ():
            scope = {"type": "http", "method": method, "path": path, "headers": []}
            first = next(one for one in routes if one.matches(dict(scope))[0] is Match.FULL)
            assert not isinstance(first, PageRoute), (method, path)


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("GET", "/api/nothing"),
        ("GET", "/datasets/x"),
        ("GET", "/spaces/x"),
        ("GET", "/v2/x"),
        ("GET", "/acme/tone.git"),
        ("GET", "/acme/tone.merged"),
        ("GET", "/acme"),
        ("GET", "/acme%2Ftone"),
        ("GET", "/acme/tone/"),
        ("GET", "/acme/tone/info/refs"),
        ("POST", "/acme/tone"),
        ("PUT", "/acme/tone"),
        ("DELETE", "/acme/tone"),
        ("GET", "/docs/x"),
        ("GET", "/metrics/x"),
    ],
)
def test_unknown_addresses_stay_unknown_with_pages(team: Server, method: str, address: str) -> None:
    answer = team.call(method, address)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json"
    assert "X-Error-Message" in answer.headers


def test_a_browser_gets_a_page_for_an_unknown_address_and_the_search_for_that_of_a_namespace(
    team: Server,
) -> None:
    browser = Browser(team)
    answer = browser.get("/-/nothing")
    assert (answer.status, "there is no page /-/nothing" in answer.body.decode()) == (404, True)
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert 'href="/-/fleet"' in answer.body.decode(), "the navigation of who is signed in"
    without = Browser(team, None).get("/-/nothing")
    assert (without.status, 'href="/-/fleet"' in without.body.decode()) == (404, False)
    found = browser.get("/acme")
    assert (found.status, found.headers["Location"]) == (303, "/?q=namespace%3Aacme")
    assert browser.get("/-/nothing?format=json").headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("address", "most"), [("/", 30), (f"/{TONE}", 60), ("/-/fleet", 60)])
def test_a_page_reads_the_database_a_bounded_number_of_times(team: Server, address: str, most: int) -> None:
    statements = statements_of(Browser(team), address)
    assert 0 < len(statements) <= most, "\n".join(statements)
