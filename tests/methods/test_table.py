"""The tables of methods and layouts import an entry when it is looked up."""

from __future__ import annotations

import subprocess
import sys

from adaptry.adapters.layouts import LAYOUTS
from adaptry.adapters.methods import METHODS


def test_every_method_has_its_own_name() -> None:
    assert [method.name for method in METHODS.values()] == list(METHODS)
    assert METHODS.get("none") is None
    assert "none" not in METHODS


def test_every_layout_can_be_looked_up() -> None:
    assert all(LAYOUTS[name].describe for name in LAYOUTS)


def test_a_method_is_imported_without_the_others() -> None:
    script = """
import sys
from adaptry.adapters.methods import METHODS
assert METHODS["loha"].name == "loha" and "hra" in METHODS
modules = [name for name in sys.modules if name.startswith("adaptry.adapters.methods.")]
assert "adaptry.adapters.methods.loha" in modules and "adaptry.adapters.methods.hra" not in modules, modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
