"""Writes the reference of `import adaptry`: `python -m adaptry.facade > docs/python.md`."""

from __future__ import annotations

import sys

from adaptry.facade.reference_page import render_page

sys.stdout.write(render_page())
