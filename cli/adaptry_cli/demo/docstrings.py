"""Docstrings of Python's own standard library: real text that is on every machine.

Read from the source files with `ast`, in the order of their paths, so that one Python version always
gives one list.  Nothing is imported, so nothing of the library runs.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from adaptry.core.errors import MissingDependency
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class DocstringEntry:
    """A module, class or function; `signature` is of functions only; `paragraph` is its docstring's first."""

    name: str
    signature: str | None
    paragraph: str


def module_docstrings() -> Iterator[tuple[str, DocstringEntry]]:
    """The docstrings of the library's single-file modules, each with its module's name."""
    for path in sorted(_root().glob("*.py")):
        for item in _documented(path):
            yield path.stem, item


def package_docstrings(name: str) -> Iterator[DocstringEntry]:
    """The docstrings of a package (or the single-file module of that name), without its tests."""
    module = _root() / f"{name}.py"
    for path in [module] if module.exists() else sorted((_root() / name).rglob("*.py")):
        if not {"test", "tests"} & set(path.parts):
            yield from _documented(path)


def _root() -> Path:
    root = Path(sysconfig.get_path("stdlib"))
    if not (root / "asyncio" / "events.py").exists():
        raise MissingDependency(
            f"the demo learns from the sources of Python's standard library, but {root} has none; run it"
            " with a Python that has them (python.org's, your system's, uv's or conda's)"
        )
    return root


def _documented(path: Path) -> Iterator[DocstringEntry]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # lib2to3 and others keep files of other Pythons
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if paragraph:
                yield DocstringEntry(_name(node, path), _signature(node), paragraph)


def _name(node: ast.AST, path: Path) -> str:
    return str(getattr(node, "name", path.stem))


def _signature(node: ast.AST) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"({ast.unparse(node.args)})"
    return None
