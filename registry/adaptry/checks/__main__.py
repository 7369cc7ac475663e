"""Prints the page of all finding codes: `python -m adaptry.checks > docs/checks.md`."""

from __future__ import annotations

import sys

from adaptry.checks.codes_page import render_page

sys.stdout.write(render_page())
