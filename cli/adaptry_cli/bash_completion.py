"""Completion in bash, of words with `@`, `=` and `:` in them.

Bash takes these for ends of words: it hands `acme/tone@pr` over as three words, and puts what completes it
behind the `@`. So the line itself is split here, and of each completion only the part after the last such
character is given back.
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
    """What of the word bash keeps: all up to the last character that it takes for the end of a word."""

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
