"""Recognises a README that is the Hub's template for model cards, as PEFT saves it beside every adapter."""

from __future__ import annotations

from typing import Final

from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.readme_head import README_HEAD

_PLACEHOLDER: Final = "[More Information Needed]"
_MIN_HEADINGS = 10  # of 39 in huggingface_hub's `modelcard_template.md`
_COMMENT = lazy_pattern(r"(?s)<!--.*?-->")
_OF_TEMPLATE: Final = (
    "#",
    "Users (both direct and downstream) should be made aware of the risks",
    "Use the code below to get started with the model",
    "Carbon emissions can be estimated using",
    "**BibTeX:**",
    "**APA:**",
    "- PEFT ",
)
"""How the lines begin that the template has, or that PEFT adds, besides placeholders."""


def is_unfilled_template(readme: bytes) -> bool:
    """Whether the README is the template, with nothing filled in."""
    text = readme.decode("utf-8", "replace")
    if text.count(_PLACEHOLDER) < _MIN_HEADINGS:
        return False
    head = README_HEAD.match(text)
    lines = _COMMENT.sub("", text[head.end() :] if head else text).splitlines()
    return all(
        not line.strip() or _PLACEHOLDER in line or line.lstrip().startswith(_OF_TEMPLATE) for line in lines
    )
