"""Rewrites options of the command line in a sentence, for callers that pass arguments or fields instead.

Sentences of errors and notes name options: `pass --other-base`. A Python program passes `other_base=True`,
and a job has the field `other_base=true`. Complete commands (`adaptry convert REF --base BASE`) and options
of other programs stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from adaptry.core.lazy_dataclass import dataclass

_COMMAND = re.compile(r"`adaptry [^`]*`|\badaptry [a-z][^;,()]*")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)(?: (?P<value>[\w./|-]*\w))?")
_PASS_BASE = re.compile(r"pass the base with --base(?: \([^)]*\))?")
_NO_VALUES = frozenset(("and", "as", "for", "if", "in", "instead", "of", "or", "to", "too", "which", "with"))


@dataclass(frozen=True, slots=True)
class ArgumentNames:
    """The arguments of a function, or the fields of a job. `arguments`: by name, whether it is true or false.
    `renamed`: options whose argument has another name. `quote` is put around values that are text, and `true`
    is the text for a flag that is set. `set_base` replaces the remedy "pass the base with --base" for callers
    that cannot pass a base.
    """

    arguments: Mapping[str, bool]
    renamed: Mapping[str, str] = field(default_factory=dict)
    quote: str = '"'
    true: str = "True"
    set_base: str | None = None

    def in_sentence(self, sentence: str) -> str:
        """The sentence with arguments in the place of options."""
        if self.set_base is not None and "base" not in self.arguments:
            sentence = _PASS_BASE.sub(self.set_base, sentence)
        parts, at = [], 0
        for command in _COMMAND.finditer(sentence):
            parts += [_OPTION.sub(self._argument, sentence[at : command.start()]), command[0]]
            at = command.end()
        return "".join([*parts, _OPTION.sub(self._argument, sentence[at:])])

    def _argument(self, option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        name = name if name in self.arguments else self.renamed.get(name, name)
        value = option["value"]
        if name not in self.arguments:
            return option[0]
        if self.arguments[name]:
            return f"{name}={self.true}" + (f" {value}" if value else "")
        if value is None or value in _NO_VALUES:
            return f"{name}=…" + (f" {value}" if value else "")
        is_placeholder = re.fullmatch(r"[A-Z|]+|[\d.]+", value)
        return f"{name}={value}" if is_placeholder else f"{name}={self.quote}{value}{self.quote}"
