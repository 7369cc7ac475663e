"""PEFT's folder: the adapter's own files where it is in that layout, byte for byte."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.formats import PEFT
from adaptry.adapters.output_folder import output_folder
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.from_mlx import convert_mlx_layout
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.folder_writer import write_adapter as write_draft
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter


def write(parent: ParentAdapter, target: Path, setting: ExportOptions) -> tuple[str, ...]:
    """Raises what `output_folder` raises, and `Unsupported` for a layout that is not brought into PEFT's."""
    if parent.adapter.format is not PEFT:
        draft = convert_mlx_layout(parent, Runtime("peft"), setting)
        write_draft(draft, target, replace=setting.may_replace, progress=setting.progress)
        return draft.notes
    content = parent.adapter.content
    with output_folder(target, replace=setting.may_replace) as folder:
        for name in content.sizes:
            with (folder / name).open("xb") as file:
                file.writelines(content.chunks(name))
    return ()
