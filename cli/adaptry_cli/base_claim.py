"""Which base a push claims: the one that the call names, else the one that the adapter's config leads to.

By content where the base is at hand or known, else by name. A folder is never claimed as a path: that means
nothing on another machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Invalid, NotFound
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import is_folder, parse_base_name
from adaptry.registry.bases import Bases
from adaptry.registry.records import BaseInfo
from adaptry_cli.arguments import is_folder_path
from adaptry_cli.inputs import fingerprint_of
from adaptry_cli.out import print_err


def base_claim(bases: Bases, text: str) -> BaseClaim:
    """The claim of `--base`: a folder, a name or an id. Raises `NotFound`, `Invalid`."""
    if is_folder_path(text):
        return _by_content(bases, fingerprint_of(Path(text)), text)
    info = _known(bases, text)
    if info is None:
        return _unknown_claim(text)
    return BaseClaim(id=info.id, name=_first_name(info))


def claim_of_config(bases: Bases, adapter: Adapter, folder: Path) -> BaseClaim | None:
    """By content where the config names a checkpoint on this machine, as PEFT writes it for a folder.

    None where it does not: then the name in the config is what there is. A name that the registry knows is a
    name, even if a folder is called so too.
    """
    written = adapter.config.base_name
    if written is None or (not is_folder(written) and _known(bases, written)):
        return None
    for place in _places(written, folder):
        try:
            record = fingerprint_of(place)
        except (AdaptryError, OSError):
            continue  # nothing there, or no whole checkpoint
        return _by_content(bases, record, str(place))
    return None


def _places(written: str, folder: Path) -> Iterator[Path]:
    """Where training that wrote `written` may have found its base: from here, or the adapter's folder."""
    try:
        named = Path(written).expanduser()
    except RuntimeError:  # ~someone who is not on this machine
        return
    yield from dict.fromkeys((named, folder / named, folder.parent / named))


def _by_content(bases: Bases, record: BaseRecord, place: str) -> BaseClaim:
    info = _known(bases, str(record.id))
    if info is None:
        print_err(
            f"the base in {place} is not registered; `adaptry base add {place} --name ORG/MODEL` does that"
        )
        return BaseClaim(id=record.id)
    print_err(f"the base in {place} is {_first_name(info) or info.id.brief}")
    return BaseClaim(id=record.id, name=_first_name(info))


def _unknown_claim(text: str) -> BaseClaim:
    if not text.startswith("sha256:"):
        return BaseClaim(name=parse_base_name(text))
    try:
        return BaseClaim(id=Digest.parse(text))
    except Invalid as error:
        raise Invalid(
            f"no known base begins with {text}, and it is not a whole id: {error.message}"
        ) from None


def _known(bases: Bases, key: str) -> BaseInfo | None:
    try:
        return bases.get(key)
    except NotFound:
        return None


def _first_name(info: BaseInfo) -> str | None:
    return info.names[0] if info.names else None
