"""The reference of `import adaptry` is generated from its docstrings, which are complete."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import adaptry
from adaptry.facade.reference_page import render_page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"
FUNCTIONS = [name for name in adaptry.__all__ if inspect.isfunction(getattr(adaptry, name))]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run: python -m adaptry.facade > docs/python.md"


def test_the_page_has_every_public_function_and_class() -> None:
    headings = set(re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    classes = {name for name in adaptry.__all__ if inspect.isclass(getattr(adaptry, name))}
    assert headings >= {*FUNCTIONS, *classes}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_names_every_argument_and_the_errors(name: str) -> None:
    function = getattr(adaptry, name)
    text = inspect.getdoc(function) or ""
    arguments = text.partition("Args:\n")[2].partition("\nRaises:")[0]
    items = re.findall(r"^    ([\w, ]+):", arguments, re.MULTILINE)
    named = {each.strip() for item in items for each in item.split(",")}
    assert named == set(inspect.signature(function).parameters)
    errors = re.sub(r": .*", "", text.partition("Raises:\n")[2].partition("\n\n")[0])
    raised = [each for each in re.findall(r"\b[A-Z]\w+", errors) if each != "As"]
    assert [each for each in raised if not hasattr(adaptry.errors, each)] == []
    assert raised or "As in `combine`" in errors


@pytest.mark.parametrize("page", ["README.md", "docs/in-code.md", "docs/python.md"])
def test_every_call_that_a_page_shows_fits_the_function(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    shown = 0
    for block in blocks:
        if " -> " in block.splitlines()[-1]:  # a signature
            continue
        for call in ast.walk(ast.parse(block.replace("…", "..."))):
            match call:
                case ast.Call(func=ast.Attribute(value=ast.Name("adaptry"), attr=name)):
                    keywords = {each.arg: None for each in call.keywords if each.arg}
                    inspect.signature(getattr(adaptry, name)).bind(*call.args, **keywords)
                    shown += 1
    assert shown
