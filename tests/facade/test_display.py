"""How values are displayed: as text in a terminal, as a table in a notebook, and always with stored text
escaped. (The display of values from a server is a slow test.)
"""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.facade.notebook_bars import NotebookBars
from adaptry.operations.base_registry import register_base
from adaptry.testing.samples import tiny_base, tiny_lora

EVIL = "<script>alert('x')</script>\x1b[2J\u202e\n\r&amp;<img src=x onerror=y>"
TAGS = {"div", "strong", "small", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


class Tags(HTMLParser):
    """The tags of a document, and its text as a browser shows it."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A value of each kind that functions return, with hostile text wherever it may contain text of other
    users.
    """
    folder = tmp_path_factory.mktemp("values")
    base = tiny_base(folder / "base")
    outs = [tiny_lora(folder / f"out-{seed}", seed=seed, base_name=EVIL) for seed in (1, 2)]
    (outs[0] / "<b>optimizer.pt").write_bytes(b"")
    registry = adaptry.connect(folder / "registry")
    register_base(registry, open_checkpoint(base), ("org/tiny",))
    pushed = [adaptry.push(registry, out, "acme/tone", metrics={"accuracy": 0.9}) for out in outs]
    adaptry.push(registry, outs[0], "acme/card", description=EVIL, provenance={"run": EVIL})
    combined = adaptry.stack(["acme/tone@1", "acme/tone@2"], to="acme/both", registry=registry)
    moved = adaptry.promote(registry, "acme/tone@1")
    found: dict[str, object] = {
        "adapter": adaptry.open_dir(outs[0]),
        "check": adaptry.check(outs[0], base=base, engines=["vllm", "llama.cpp"], registry=registry),
        "combination": adaptry.combine(outs, registry=registry),
        "comparison": adaptry.compare("acme/tone@1", outs[1], weights=True, registry=registry),
        "detail": registry.versions.detail(Ref.parse("acme/card@1")),
        "digest": pushed[0].version.digest,
        "export": adaptry.export(outs[0], engine="vllm", registry=registry),
        "exported": adaptry.export(outs[0], format="peft", to=folder / "exported", registry=registry),
        "info": registry.adapters.get(AdapterName.parse("acme/card")),
        "lineage": adaptry.lineage(registry, "acme/both"),
        "made": combined,
        "merge": adaptry.merge([(outs[0], 0.5)], base=base, registry=registry),
        "merged": adaptry.merge(outs[0], base=base, to=folder / "merged", kernel="torch", registry=registry),
        "moved": moved,
        "name": AdapterName.parse("acme/tone"),
        "page": registry.versions.list(AdapterName.parse("acme/tone")),
        "pushed": pushed[0],
        "ranks": adaptry.resize("acme/tone@1", registry=registry),
        "ref": Ref.parse("acme/tone@1"),
        "registry": registry,
        "search": adaptry.search(registry, "state:*"),
        "tensors": adaptry.load(outs[0]),
        "version": registry.version("acme/tone@2"),
    }
    found["revoked"] = adaptry.revoke(registry, "acme/tone@2", reason=EVIL)
    found["revoked version"] = registry.version("acme/tone@2")
    found["report"] = found["check"].report  # type: ignore[attr-defined]
    return found


def test_reprs_are_short_and_have_no_control_characters(
    values: dict[str, object],
) -> None:
    for kind, value in values.items():
        lines = repr(value).split("\n")
        assert len(lines) <= 25 and max(map(len, lines)) <= 250, (kind, repr(value))
        assert all(line.isprintable() for line in lines), (kind, repr(value))


def test_a_repr_begins_with_the_kind_and_the_name(values: dict[str, object]) -> None:
    assert repr(values["version"]).startswith("<VersionInfo acme/tone@2, lora, rank 4, base <script>")
    assert repr(values["ref"]) == "Ref('acme/tone@1')"
    assert repr(values["moved"]) == "<AliasMoveResult prod at version 1, new>"
    assert repr(values["search"]).startswith("<SearchResult 'state:*': ")
    assert repr(values["lineage"]).split("\n")[1:] == [
        "  acme/both@1  combine linear: 1 + 1, uniform",
        "  ├─ acme/tone@1",
        "  └─ acme/tone@2",
    ]


def test_a_notebook_shows_tables_with_all_stored_text_escaped(values: dict[str, object]) -> None:
    shown = {kind: value._repr_html_() for kind, value in values.items() if hasattr(value, "_repr_html_")}
    expected = "adapter check combination comparison detail export exported info lineage made merge merged"
    assert {*expected.split(), "pushed", "ranks", "search", "version", "report"} <= shown.keys()
    for kind, document in shown.items():
        parsed = Tags(document)
        assert parsed.found <= TAGS, (kind, parsed.found - TAGS)
        assert parsed.attributes <= {("style", "text-align:left")}, (kind, parsed.attributes)
        assert document.isprintable(), kind
    for kind in ("adapter", "version", "info", "revoked version"):
        assert "<script>alert('x')</script>\\x1b[2J\\u202e\\n" in Tags(shown[kind]).text, kind


def test_a_registrys_repr_has_its_location_but_no_token(registry: adaptry.Registry, where: str) -> None:
    assert where in repr(registry) and "adp_" not in repr(registry)


def test_progress_is_shown_as_bars_passed_to_a_function_or_switched_off(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = adaptry.connect(tmp_path / "registry")
    out = tiny_lora(tmp_path / "out")
    told: list[tuple[str, int, int]] = []
    adaptry.push(registry, out, name, progress=lambda *each: told.append(each))
    assert told and all(done <= total for _, done, total in told)

    def terminal() -> io.StringIO:
        stream = io.StringIO()
        stream.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        return stream

    shown = terminal()
    adaptry.pull(registry, name, tmp_path / "shown")
    assert "adapter_model.safetensors" in shown.getvalue()
    hidden = terminal()
    adaptry.pull(registry, name, tmp_path / "hidden", progress=False)
    assert hidden.getvalue() == ""


def test_bars_in_a_notebook_are_escaped_and_removed_at_the_end() -> None:
    drawn: list[str] = []
    bars = NotebookBars(drawn.append)
    bars("<b>weights", 10, 1_000)
    parsed = Tags(drawn[-1])
    assert parsed.found == {"div", "progress"} and parsed.text == " <b>weights 10 B of 1.0 kB"
    bars("done", 5, 5)
    assert "done" not in drawn[-1]
