"""Prints the page of all rules: `python -m adaptry.checks.runtimes > docs/runtimes.md`."""

from __future__ import annotations

import sys

from adaptry.checks.runtimes.rules_page import render_page

sys.stdout.write(render_page())
