"""A chat template's identity: the text of the default template, whichever file contains it."""

from __future__ import annotations

from typing import Any

from adaptry.core.digest import Digest

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Files that may have a template; transformers uses the first that has one."""


def template_digest(template: str) -> Digest:
    """The digest of a template, without line endings and surrounding white space, which differ between
    tools.
    """
    return Digest.of("\n".join(template.splitlines()).strip().encode())


def default_template(document: Any) -> str | None:
    """The default template in a JSON document with one template, or several by name. (`Any`: JSON.)"""
    found = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) and found.strip() else None
