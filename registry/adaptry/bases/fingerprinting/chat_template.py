"""A chat template's identity: the text of the default one, wherever it is written."""

from __future__ import annotations

from typing import Any

from adaptry.core.digest import Digest

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a template may be; the first that has one is what transformers takes."""


def template_digest(template: str) -> Digest:
    """Line ends and space around the text do not count: tools write them as they like."""
    return Digest.of("\n".join(template.splitlines()).strip().encode())


def default_template(document: Any) -> str | None:
    """The default template in a JSON file that may have one, or several by name. (`Any`: JSON.)"""
    found = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) and found.strip() else None
