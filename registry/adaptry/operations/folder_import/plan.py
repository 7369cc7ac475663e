"""Which adapter of a folder tree becomes which version. A pure function of a scan."""

from __future__ import annotations

from pathlib import Path

from adaptry.core.display import short_repr
from adaptry.core.errors import AdaptryError, NotFound, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, folder_argument, parse_namespace
from adaptry.operations.folder_scan import GGUF, FolderScan, ScannedAdapter
from adaptry.operations.training_runs import name_adapters


@dataclass(frozen=True, slots=True)
class PlannedVersion:
    """An adapter of the tree, and the name under which it becomes a version.

    `same_as` is a later adapter of the same run with the same weights and config, which becomes the version
    instead. `result_folders` are the folders whose results files become evidence of the version: its own, and
    those of the adapters that it stands for. `error`: why it cannot be imported.
    """

    adapter: ScannedAdapter
    name: AdapterName
    same_as: Path | None = None
    result_folders: tuple[Path, ...] = ()
    error: AdaptryError | None = None

    def __repr__(self) -> str:
        return short_repr(self, str(self.adapter.path), str(self.name))


def plan_import(scan: FolderScan, namespace: str) -> tuple[PlannedVersion, ...]:
    """The versions to make, sorted by name and then by step, with the end of a run last. A GGUF file next to
    an adapter is left out, since it is a conversion of that adapter.

    Raises `InvalidRef` for a namespace that is not valid, and `NotFound` if the tree has no adapter.
    """
    parse_namespace(namespace)
    if not scan.adapters:
        raise NotFound(f"no adapter in {scan.root} or the folders in it{_unsearched_text(scan)}")
    folders = {adapter.path for adapter in scan.adapters}
    runs: dict[tuple[str, ...], list[ScannedAdapter]] = {}
    for adapter in scan.adapters:
        if not (_is_gguf(adapter) and adapter.path.parent in folders):
            runs.setdefault(adapter.place.run, []).append(adapter)
    names = name_adapters(runs, namespace, scan.root.resolve().name)
    return tuple(
        version for run, name in sorted(names.items(), key=_by_name) for version in _plan_run(name, runs[run])
    )


def _unsearched_text(scan: FolderScan) -> str:
    first = next(iter(scan.unsearched), None)
    return f"; not searched: {first.path} ({first.reason})" if first else ""


def _by_name(item: tuple[tuple[str, ...], AdapterName]) -> AdapterName:
    return item[1]


def _plan_run(name: AdapterName, adapters: list[ScannedAdapter]) -> list[PlannedVersion]:
    ordered = sorted(adapters, key=lambda one: (one.place.order, one.is_main, one.modified, str(one.path)))
    contents = [one.same_weights_as if one.has_same_config else one.path for one in ordered]
    last = {content: one.path for content, one in zip(contents, ordered, strict=True)}
    planned = []
    for content, adapter in zip(contents, ordered, strict=True):
        equal = [one.path for one, other in zip(ordered, contents, strict=True) if other == content]
        is_last = last[content] == adapter.path
        planned.append(
            PlannedVersion(
                adapter,
                name,
                None if is_last else last[content],
                tuple(path for path in equal if path.is_dir()) if is_last else (),
                adapter.error or _why_not_stored(adapter),
            )
        )
    return planned


def _why_not_stored(adapter: ScannedAdapter) -> AdaptryError | None:
    if not _is_gguf(adapter):
        return None
    return Unsupported(
        f"{adapter.path} is llama.cpp's LoRA, which is not stored as it is: import the folder it was"
        f" converted from, or convert it: adaptry convert {folder_argument(adapter.path)} --base BASE -o NAME"
    )


def _is_gguf(adapter: ScannedAdapter) -> bool:
    return adapter.path.suffix == f".{GGUF}"
