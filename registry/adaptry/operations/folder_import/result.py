"""The result of importing a folder tree."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.folder_tree import UnsearchedFolder
from adaptry.core.display import format_count, html_table, table_text
from adaptry.core.lazy_dataclass import dataclass
from adaptry.operations.folder_import.bases import ImportedBase
from adaptry.operations.folder_import.run import VersionImport


@dataclass(frozen=True, slots=True)
class FolderImport:
    """The outcome for each adapter of a tree, the bases that the adapters were trained on, and the folders
    that were not searched.
    """

    root: Path
    versions: tuple[VersionImport, ...]
    bases: tuple[ImportedBase, ...] = ()
    unsearched: tuple[UnsearchedFolder, ...] = ()

    @property
    def failures(self) -> tuple[VersionImport, ...]:
        """The adapters that could not be imported, each with its `error`."""
        return tuple(version for version in self.versions if version.error is not None)

    def __repr__(self) -> str:
        rows = [_COLUMNS, *map(_row, self.versions)]
        return f"{self._title()}\n{table_text(rows)}" if self.versions else self._title()

    def _repr_html_(self) -> str:
        notes = [f"base {base.name or 'not named'}: {base.remedy}" for base in self.bases if base.remedy]
        return html_table(self._title(), _COLUMNS, list(map(_row, self.versions)), notes)

    def _title(self) -> str:
        new = sum(version.is_new for version in self.versions)
        return f"{format_count(new, 'version')} imported from {self.root}, {len(self.failures)} failed"


_COLUMNS = ("adapter", "version", "problem")


def _row(result: VersionImport) -> tuple[str, str, str]:
    label = result.version.label if result.version else str(result.planned.name)
    return str(result.planned.adapter.path), label, result.error.message if result.error else ""
