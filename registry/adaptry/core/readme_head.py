"""The head of a README: YAML between two lines of `---`, found as the Hub's clients find it."""

from __future__ import annotations

import re

README_HEAD = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))")
"""Matches at the start of the text; the second group is the YAML. The expression is huggingface_hub's own."""
