"""Prints the page of repairs and formats: `python -m adaptry.compute.exporting > docs/exporting.md`."""

from __future__ import annotations

import sys

from adaptry.compute.exporting.formats_page import render_page

sys.stdout.write(render_page())
