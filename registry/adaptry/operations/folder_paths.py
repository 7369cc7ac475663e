"""Whether a word that may be a folder or a name in the registry is a folder."""

from __future__ import annotations

from pathlib import Path

from adaptry.core.errors import InvalidRef
from adaptry.core.refs import GRAMMAR, Ref, is_folder


def is_folder_path(text: str) -> bool:
    """Whether a word that may be a folder or a name in the registry is a folder.

    Raises `InvalidRef`, with the unambiguous spellings, if it could be either.
    """
    if is_folder(text):
        return True
    if Path(text).is_dir():
        try:
            named = f"{Ref.parse(text).name}@latest"
        except InvalidRef:
            named = f"namespace/name ({GRAMMAR})"
        raise InvalidRef(
            f"{text!r} is also a folder here: write ./{text} for the folder, or {named} for the registry's"
        )
    return False
