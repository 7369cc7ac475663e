"""Completion in bash, of words with `@`, `=` and `:` in them.

Bash treats these characters as word breaks: it passes `acme/tone@pr` as three words, and appends a completion
after the `@`. So this module splits the line itself, and returns only the part of each completion after the
last such character.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, split_arg_string

_SOURCE = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local response

    response=$(env COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete $1)

    for completion in $response; do
        IFS=',' read type value <<< "$completion"

        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=($value)
        fi
    done

    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


class LineBashComplete(BashComplete):
    """Bash completion that reads the line instead of bash's words."""

    source_template = _SOURCE
    _left = ""
    """The part of the word that bash keeps: everything up to the last word-break character."""

    def get_completion_args(self) -> tuple[list[str], str]:
        # COMP_POINT counts bytes of the line.
        line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode(errors="ignore")
        words = split_arg_string(line)[1:]
        typed = words.pop() if words and not line[-1:].isspace() else ""
        ends = [typed.rfind(char) for char in os.environ.get("COMP_WORDBREAKS", "") if char.strip()]
        self._left = typed[: max([-1, *ends]) + 1]
        return words, typed

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """(`Any`: click's own.)"""
        return f"{item.type},{item.value.removeprefix(self._left)}"
