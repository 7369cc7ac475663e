"""The child process that matches patterns against names with `re`.

`re` can run for hours on a short pattern, and holds the interpreter lock the whole time. Here it runs in a
separate process, which its parent limits (`core.processes.bounded`). Standard library only.

Request: JSON, `{"names": [...], "questions": [[rule, pattern], ...]}`. Answer: one line per question, written
at once: `=` and a bit for each name in hexadecimal, or `!` and the reason why the pattern is invalid. So even
an answer that was cut off by the limit shows which questions were answered. The last line is `#` and the
processor seconds used.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings

SUFFIX, WHOLE = "suffix", "whole"


def compile_rule(rule: str, pattern: str) -> re.Pattern[str]:
    """Compiles a pattern like PEFT 0.21: a key of `rank_pattern` (`get_pattern_key`), or `target_modules` as
    text.
    """
    return re.compile(rf"(.*\.)?({pattern})$" if rule == SUFFIX else pattern)


def match_rule(rule: str, pattern: str, names: list[str]) -> str:
    try:
        expression = compile_rule(rule, pattern)
        test = expression.match if rule == SUFFIX else expression.fullmatch
        bits = "".join("1" if test(name) else "0" for name in names)
    except (re.error, RecursionError, OverflowError) as error:
        return f"!{error}"
    except MemoryError:
        return "!it needs too much memory"
    return f"={int(bits or '0', 2):x}"


def main() -> None:
    warnings.simplefilter("ignore")  # warnings about changes in later versions of Python
    request = json.load(sys.stdin.buffer)
    for rule, pattern in request["questions"]:
        line = match_rule(rule, pattern, request["names"])
        _write(line)
    _write(f"#{time.process_time():.6f}")


def _write(line: str) -> None:
    sys.stdout.buffer.write(line.replace("\n", " ").encode("ascii", "replace") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
