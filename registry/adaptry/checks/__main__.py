"""Writes the page of all codes: `python -m adaptry.checks > docs/checks.md`."""

from __future__ import annotations

import sys

from adaptry.checks.codes import page

sys.stdout.write(page())
