"""Prints the page of all methods of combining: `python -m adaptry.compute.combining > docs/combining.md`."""

from __future__ import annotations

import sys

from adaptry.compute.combining.methods_page import render_page

sys.stdout.write(render_page())
