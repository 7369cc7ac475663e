"""`docs/python.md`, from signatures and docstrings: what `help()` shows is what is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import adaptry
from adaptry.core.errors import AdaptryError, by_code
from adaptry.facade.docstrings import docstring_markdown

_HEAD = """# Python

This page is generated from the docstrings by `python -m adaptry.facade > docs/python.md`; a test fails when
it is out of date. [In code](in-code.md) shows how to use the functions, and [the
notebook](../examples/notebook/adaptry.ipynb) walks through them.

Importing `adaptry` loads nothing else; torch and other libraries are imported by the functions that need
them. Functions that work on a registry take it as their first argument: an open registry, a server's URL, or
a folder. Functions that also work on adapters in folders take it as `registry=`, and do not need it for
folders. Each function closes whatever it opens.

Where a function takes a folder or a name in the registry, a string is a folder if it begins with `./`, `../`,
`/` or `~`, and otherwise a name; a `Path` is always a folder. The source of `push` is always a folder.

In a notebook, results are shown as tables. Transfers and computations show progress bars; `progress=False`
turns them off. Messages that a caller should see, such as that a version is deprecated, are logged as
warnings of the logger `adaptry`.
"""
_SECTIONS: dict[str, tuple[str, ...]] = {
    "Registries": ("connect",),
    "Versions": ("push", "pull", "load", "search", "lineage"),
    "Checks and comparisons": ("check", "compare"),
    "Weights": ("merge", "combine", "stack", "convert", "resize", "export"),
    "Evidence": ("add_evidence", "evidence"),
    "Releases": ("promote", "rollback", "revoke"),
    "Folders of training runs": ("inspect_folder", "import_folder"),
    "Files on this machine": ("open_dir",),
}
_ALIASES = {
    "adaptry.facade.registries": ("RegistryLike",),
    "adaptry.facade.arguments": ("RefLike", "SourceLike", "BaseLike", "DtypeLike", "Weighted"),
    "adaptry.integrations.inprocess.fetch": ("AdapterSource",),
    "adaptry.facade.progress_bars": ("ShowProgress",),
}
_VALUES = (
    "adaptry.registry.interface.Registry",
    "adaptry.core.refs.Ref",
    "adaptry.adapters.adapter.Adapter",
    "adaptry.registry.records.VersionInfo",
    "adaptry.registry.records.PushResult",
    "adaptry.operations.search.SearchResult",
    "adaptry.registry.evidence.EvidenceInfo",
    "adaptry.registry.evidence.EvidenceAddition",
    "adaptry.integrations.inprocess.tensors.LazyTensors",
    "adaptry.integrations.inprocess.load_result.LoadResult",
    "adaptry.operations.lineage.LineageNode",
    "adaptry.operations.adapter_check.CheckResult",
    "adaptry.core.report.CheckReport",
    "adaptry.core.report.Finding",
    "adaptry.checks.runtimes.rule.RuntimeVerdict",
    "adaptry.operations.comparison.Comparison",
    "adaptry.operations.differences.Difference",
    "adaptry.compute.comparison.results.AdapterDistance",
    "adaptry.compute.comparison.results.ModuleDistance",
    "adaptry.compute.merging.plan.MergePlan",
    "adaptry.facade.merge.MergeResult",
    "adaptry.compute.merging.record.MergeRecord",
    "adaptry.compute.combining.plan.CombinePlan",
    "adaptry.compute.combining.plan.PlannedSite",
    "adaptry.operations.derived_output.DerivedResult",
    "adaptry.compute.lazy_adapters.folder_writer.ComputeResult",
    "adaptry.compute.conversion.rank_choice.RankPlan",
    "adaptry.compute.conversion.rank_energy.RankPoint",
    "adaptry.compute.exporting.plan.ExportPlan",
    "adaptry.operations.export.ExportOutput",
    "adaptry.compute.exporting.export.ExportResult",
    "adaptry.operations.promotion.AliasMoveResult",
    "adaptry.operations.version_state.StateChangeResult",
    "adaptry.operations.folder_scan.FolderScan",
    "adaptry.operations.folder_scan.ScannedAdapter",
    "adaptry.operations.folder_import.result.FolderImport",
    "adaptry.operations.folder_import.run.VersionImport",
    "adaptry.operations.folder_import.plan.PlannedVersion",
    "adaptry.operations.folder_import.bases.ImportedBase",
)
_WIDTH = 100


def render_page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, names in _SECTIONS.items():
        parts.append(f"## {title}")
        parts += [_function(name, getattr(adaptry, name)) for name in names]
    parts.append("## What arguments may be")
    parts += [_alias(module, name) for module, names in _ALIASES.items() for name in names]
    parts.append("## What functions return")
    parts += [_class(path) for path in _VALUES]
    parts += ["## Errors", _errors()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _function(name: str, function: Callable[..., object]) -> str:
    return f"### {name}\n\n```python\n{_signature(name, function)}\n```\n\n{docstring_markdown(function)}"


def _signature(name: str, function: Callable[..., object]) -> str:
    """On one line, or with each parameter on its own."""
    signature = inspect.signature(function)
    result = f" -> {signature.return_annotation}"
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{parameter.name}: {parameter.annotation}{default}")
    line = f"{name}({', '.join(shown)}){result}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in shown), f"){result}"])


def _alias(module: str, name: str) -> str:
    """An alias with the text below it, which only the source has."""
    tree = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8"))
    for statement, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and getattr(statement.target, "id", "") == name:
            assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant), name
            return f"**`{name}`**: {' '.join(str(below.value.value).split())}"
    raise LookupError(f"{module} has no alias {name}")


def _class(path: str) -> str:
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    members = "\n".join(_members(kind))
    return f"### {name}\n\n{docstring_markdown(kind)}" + (f"\n\n{members}" if members else "")


def _members(kind: Any) -> Iterator[str]:
    """Fields, properties and methods that people use. (`Any`: classes of three kinds.)"""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        annotations = {name: kind.__annotations__[name] for name in kind.model_fields}
    elif is_dataclass(kind):
        annotations = {field.name: field.type for field in fields(kind)}
    else:
        annotations = {}
    yield from (f"- `{name}: {annotation}`" for name, annotation in annotations.items() if name[0] != "_")
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        function = member.fget if isinstance(member, property) else getattr(member, "func", member)
        about = inspect.getdoc(function) if inspect.isfunction(function) else None
        if inspect.isfunction(function):
            call = "" if function is not member else "()"
            yield f"- `{name}{call}`" + (f": {' '.join(about.split())}" if about else "")


def _errors() -> str:
    """Every error, below its base class."""
    intro = (
        "Errors are classes of `adaptry.errors`, and all derive from `AdaptryError`: `message` is a"
        " sentence that says what happened and what to try; `code` is stable. A server and an embedded"
        " registry raise the same errors."
    )
    return "\n".join([intro, "", *_error_lines(AdaptryError, 0, set(by_code().values()))])


def _error_lines(kind: type[AdaptryError], depth: int, known: set[type[AdaptryError]]) -> Iterator[str]:
    yield f"{'  ' * depth}- `{kind.__name__}`: {' '.join((inspect.getdoc(kind) or '').split())}"
    for below in kind.__subclasses__():
        if below in known:
            yield from _error_lines(below, depth + 1, known)
