"""Names and refs as people write them: `acme/tone`, `acme/tone@3`, `acme/tone@prod`, `acme/tone@sha256:…`.

Parsing either gives a valid value or an error that shows the grammar. A registry resolves a ref to a
revision; this file only parses and formats it. Names follow the Hub's rule, so that an adapter can be reached
through the Hub protocol under the name it has here.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.git_names import find_name_problem, is_like_version_or_id, to_valid_name
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

GRAMMAR = (
    "a ref is namespace/name (its latest version), or that with @3 or @v3 (a version), @prod (an alias or"
    " branch) or @sha256:<12 or more hex digits>"
)
RESERVED_NAMESPACES = frozenset(
    [
        "api",
        "v1",
        "v2",
        "v3",
        "xet",
        "datasets",
        "spaces",
        "kernels",
        "buckets",
        "models",
        "settings",
        "docs",
        "static",
        "health",
        "healthz",
        "readyz",
        "metrics",
        "login",
        "logout",
        "assets",
        "bases",
        "new",
        "search",
        "openapi.json",
        "favicon.ico",
        "robots.txt",
    ]
)
MERGED = ".merged"
"""`acme/tone.merged` is the adapter `acme/tone` merged into its base, computed while it is read. No adapter's
name may end with this suffix.
"""

# Windows reserves these device names with any extension, so no user there could pull into such a folder.
_DEVICE = lazy_pattern(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_PART = lazy_pattern(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_ALIAS = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = lazy_pattern(r"v?([1-9][0-9]{0,8})")
_DIGEST = lazy_pattern(r"sha256:([0-9a-f]{12,64})")
_HEX_ID = lazy_pattern(r"[0-9a-f]{7,64}")


def _part_problem(part: str) -> str | None:
    if not _PART.fullmatch(part):
        return "letters, digits, '.', '_' and '-', 1 to 96 of them, not starting or ending with '.' or '-'"
    if "--" in part or ".." in part or part.lower().endswith(".git"):
        return "'--', '..' and a final '.git' are not allowed"
    if _DEVICE.fullmatch(part):
        return f"{part!r} is a device on Windows, where it could not be pulled"
    return None


def _require_unreserved(namespace: str) -> None:
    if namespace.lower() in RESERVED_NAMESPACES:
        raise InvalidRef(f"the namespace {namespace!r} is reserved; choose another")


def parse_namespace(text: str) -> str:
    """The name of a namespace. Raises `InvalidRef`."""
    if problem := _part_problem(text):
        raise InvalidRef(f"not a namespace: {text[:200]!r} ({problem})")
    _require_unreserved(text)
    return text


@dataclass(frozen=True, slots=True, order=True)
class AdapterName:
    """`acme/tone`: the namespace and name of an adapter."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if is_folder(text):
            raise InvalidRef(f"{text[:200]!r} is a path, not the name of an adapter, such as acme/tone")
        namespace, slash, name = text.partition("/")
        if not slash:
            raise InvalidRef(f"not an adapter name: {text[:200]!r} has no namespace ({GRAMMAR})")
        for part in (namespace, name):
            if problem := _part_problem(part):
                raise InvalidRef(f"not an adapter name: {text[:200]!r} ({problem}; {GRAMMAR})")
        _require_unreserved(namespace)
        if name.lower().endswith(MERGED):
            raise InvalidRef(
                f"{text[:200]!r} cannot name an adapter: the ending {MERGED} is reserved for merged"
                " models, which clients of the Hub read (HF_ENDPOINT); choose another name"
            )
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def __repr__(self) -> str:
        return f"AdapterName({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Serialises a name as its text. (`Any`: the type in pydantic's signature.)"""
        from pydantic_core import core_schema  # not every command uses models

        def read(value: object) -> AdapterName:
            if isinstance(value, AdapterName):
                return value
            try:
                return cls.parse(str(value))
            except InvalidRef as error:
                raise ValueError(error.message) from None

        return core_schema.no_info_plain_validator_function(
            read,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema()
            ),
        )


def parse_base_name(text: str) -> str:
    """Checks the name of a base: `org/model`, or one word like the Hub's oldest models (`gpt2`)."""
    parts = text.split("/")
    problems = [problem for part in parts if (problem := _part_problem(part))]
    if len(parts) > 2 or problems:
        problem = problems[0] if problems else "one '/' at most"
        raise InvalidRef(
            f"not a name for a base: {text[:200]!r} ({problem}); write ORG/MODEL, as in org/model,"
            " or one word, as in gpt2"
        )
    return text


def parse_alias(text: str) -> str:
    """Checks the name of a new alias: the rules of `parse_stored_alias`, and git's (`git_names`).

    Raises `InvalidRef`.
    """
    problem = find_name_problem(text)
    if problem and text != "latest":  # `parse_stored_alias` explains this one better
        near = to_valid_name(text).replace("/", "-").replace("+", "-")
        raise InvalidRef(f"not a name for an alias: {text[:80]!r}: {problem}; write {near[:64]}")
    if is_like_version_or_id(text):
        raise _ambiguous_alias(text)
    return parse_stored_alias(text)


def parse_stored_alias(text: str) -> str:
    """Checks an alias: not `latest`, `main`, digits, `v<digits>`, 7 or more hex digits, or a Windows device.

    Older registries hold aliases that `parse_alias` refuses today. Raises `InvalidRef`.
    """
    if not _ALIAS.fullmatch(text) or text.startswith("refs"):
        raise InvalidRef(
            f"not an alias: {text[:80]!r} (letters, digits, '.', '_' and '-', 1 to 64,"
            " not starting with refs)"
        )
    if text in ("latest", "main") or text.isdigit() or _VERSION.fullmatch(text) or _HEX_ID.fullmatch(text):
        raise _ambiguous_alias(text)
    if _DEVICE.fullmatch(text):
        raise InvalidRef(f"the alias {text!r} is a device on Windows; choose a word such as prod")
    return text


def _ambiguous_alias(alias: str) -> InvalidRef:
    return InvalidRef(
        f"the alias {alias!r} would be mistaken for something else "
        "(latest, main, digits, v<digits> and 7 or more hex digits are taken); choose a word such as prod"
    )


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest version that is active."""


@dataclass(frozen=True, slots=True)
class Number:
    """A version by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class Label:
    """An alias, or a branch."""

    label: str


@dataclass(frozen=True, slots=True)
class ByDigest:
    """A revision by its digest or a prefix of it, 7 hex digits or more."""

    prefix: str


Selector = Latest | Number | Label | ByDigest


def parse_selector(text: str) -> Selector:
    """Parses the part of a ref after `@`: `latest`, `3`, `v3`, `prod`, `sha256:…`, or a bare hex id."""
    if text in ("latest", "main"):
        return Latest()
    if match := _VERSION.fullmatch(text):
        return Number(int(match[1]))
    if match := _DIGEST.fullmatch(text):
        return ByDigest(match[1])
    if _HEX_ID.fullmatch(text):
        return ByDigest(text)
    if _ALIAS.fullmatch(text) and not text.isdigit():
        # Also `V3` and `v01`: new aliases cannot have such names, but those of older registries may.
        return Label(text)
    raise InvalidRef(f"not a version, alias or digest: {text[:80]!r} ({GRAMMAR})")


def format_selector(selector: Selector) -> str:
    match selector:
        case Latest():
            return "latest"
        case Number(number):
            return str(number)
        case Label(label):
            return label
        case ByDigest(prefix):
            return f"sha256:{prefix}" if len(prefix) >= 12 else prefix


@dataclass(frozen=True, slots=True)
class Ref:
    """An adapter's name, and a selector for one of its revisions."""

    name: AdapterName
    selector: Selector = Latest()

    @classmethod
    def parse(cls, text: str) -> Self:
        name, at, selector = text.partition("@")
        return cls(AdapterName.parse(name), parse_selector(selector) if at else Latest())

    @classmethod
    def of_revision(cls, name: AdapterName, revision: Digest) -> Self:
        """The ref that always selects exactly this revision."""
        return cls(name, ByDigest(revision.hex))

    def at(self, selector: Selector) -> Ref:
        """The ref of the same adapter with another selector."""
        return Ref(self.name, selector)

    def __str__(self) -> str:
        if isinstance(self.selector, Latest):
            return str(self.name)
        return f"{self.name}@{format_selector(self.selector)}"

    def __repr__(self) -> str:
        return f"Ref({str(self)!r})"


def require_value(value: AdapterName | Ref) -> None:
    """Raises `InvalidRef` for text where a parsed value is needed, with what to write instead."""
    if isinstance(value, str):
        raise InvalidRef(
            f"a registry's roles take values, not text: write registry.version({value[:200]!r}), or parse it"
            " with Ref.parse or AdapterName.parse"
        )


def is_folder(text: str) -> bool:
    """Whether an argument is a folder and not a ref: it must begin with `./`, `../`, `/` or `~`."""
    return (
        text in (".", "..") or text.startswith(("./", "../", "/", "~", ".\\", "..\\")) or text[1:3] == ":\\"
    )


def is_folder_path(text: str, *, of_base: bool = False) -> bool:
    """Whether `text`, which may be a folder or a name in the registry, is a folder.

    Raises `InvalidRef`, with the unambiguous spellings, if it could be either. `of_base`: it is a base, and
    not an adapter.
    """
    if is_folder(text):
        return True
    if (path := Path(text)).exists():
        kind = "folder" if path.is_dir() else "file"
        raise InvalidRef(
            f"{text!r} could be a name or a path: write ./{text} for the {kind} here, or"
            f" {_unambiguous_name(text, of_base)}"
        )
    return False


def _unambiguous_name(text: str, of_base: bool) -> str:
    if of_base:
        return "the id of a base in the registry (`adaptry base ls`)"
    try:
        return f"{Ref.parse(text).name}@latest for an adapter in the registry"
    except InvalidRef:
        return "NAMESPACE/NAME for an adapter in the registry"


def may_be_folder(base_name: str) -> bool:
    """Whether the base in an adapter's config may be a folder of the machine it was trained on: anything but
    `org/model`. One word may be both, the folder `base` or one of the Hub's oldest models (`gpt2`).
    """
    if is_folder(base_name) or "/" not in base_name:
        return True
    try:
        parse_base_name(base_name)
    except InvalidRef:
        return True
    return False


def folder_argument(folder: Path) -> str:
    """A folder as written in a command: `./out`, `../out`, `/out`."""
    text = str(folder)
    return text if is_folder(text) else f".{os.sep}{text}"


def split_weight(text: str) -> tuple[str, float]:
    """`acme/tone@prod=0.7` → (`acme/tone@prod`, 0.7); without `=`, weight 1. Finite numbers only."""
    source, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        value = float(weight if weight.isascii() and "_" not in weight else "")
    except ValueError:
        raise InvalidRef(f"not a weight: {weight[:40]!r} in {text[:200]!r} (write REF=0.7)") from None
    if not math.isfinite(value):
        raise InvalidRef(f"a weight must be finite, not {weight!r} (write REF=0.7)")
    return source, value
