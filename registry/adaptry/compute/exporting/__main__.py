"""Writes the page of repairs and formats: `python -m adaptry.exporting > docs/exporting.md`."""

from __future__ import annotations

import sys

from adaptry.compute.exporting.page import page

sys.stdout.write(page())
