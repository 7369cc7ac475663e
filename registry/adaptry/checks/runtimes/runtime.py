"""A runtime as people name it: an engine, its version, and the limits it was started with.

`vllm@0.33,max_lora_rank=64`. The version may be omitted, which means the version of the rules; names are
separated by `+` (`lora_target_modules=q_proj+v_proj`). This module has only the grammar; each engine defines
its options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

GRAMMAR = "write ENGINE[@VERSION][,option=value…], as in vllm@0.33,max_lora_rank=64"

_HEAD = re.compile(r"(?P<engine>[a-z][a-z0-9_.-]*)(?:@v?(?P<version>\d{1,9}(?:\.\d{1,9}){0,3}))?")
_OPTION = re.compile(r"--?(?=[a-z])|")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MAX_LENGTH = 1024

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Runtime:
    """An engine with its version and options as given; `version` is None if it was not given."""

    engine: str
    version: Version | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The runtime in `text`. Raises `Invalid` with the grammar."""
        head, *rest = text[: _MAX_LENGTH + 1].strip().split(",")
        found = _HEAD.fullmatch(head.strip().lower())
        if found is None or len(text) > _MAX_LENGTH:
            raise Invalid(f"not a runtime: {text[:80]!r} ({GRAMMAR})")
        options: dict[str, str] = {}
        for part in rest:
            name, equals, value = part.strip().partition("=")
            name = _OPTION.sub("", name, count=1).replace("-", "_")
            if not equals or not _NAME.fullmatch(name) or not value:
                raise Invalid(f"not an option of a runtime: {part[:80]!r} ({GRAMMAR})")
            if name in options:
                raise Invalid(f"the option {name} is given twice")
            options[name] = value
        version = found["version"]
        return cls(found["engine"], parse_version(version) if version else None, options)

    def number(self, option: str) -> int | None:
        """The value of a limit; None if that option was not given."""
        value = self.options.get(option)
        return None if value is None else int(value)

    def names(self, option: str) -> frozenset[str] | None:
        """The names in an option; None if that option was not given."""
        value = self.options.get(option)
        return None if value is None else frozenset(value.split("+"))

    def __str__(self) -> str:
        version = f"@{format_version(self.version)}" if self.version else ""
        return ",".join((self.engine + version, *(f"{name}={value}" for name, value in self.options.items())))


def parse_version(text: str) -> Version:
    """`0.33` as a tuple of numbers, which can be compared."""
    return tuple(int(part) for part in text.split("."))


def format_version(version: Version) -> str:
    return ".".join(map(str, version))
