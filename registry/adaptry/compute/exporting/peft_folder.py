"""Writes PEFT's folder. An adapter that is already in that layout is copied byte for byte."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.formats import PEFT
from adaptry.adapters.output_folder import output_folder
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.foreign_layouts.to_peft import convert_to_peft
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the folder. Raises the errors of `output_folder`, and `Unsupported` for a layout that cannot be
    converted to PEFT's.
    """
    if parent.adapter.format is not PEFT:
        adapter = convert_to_peft(parent, options.record, options.part)
        write_adapter(adapter, target, replace=options.may_replace, progress=options.progress)
        return adapter.notes
    content = parent.adapter.content
    with output_folder(target, replace=options.may_replace, sources=[content]) as folder:
        for name in content.sizes:
            with (folder / name).open("xb") as file:
                file.writelines(content.chunks(name))
    return ()
