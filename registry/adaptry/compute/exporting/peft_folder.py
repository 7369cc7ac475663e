"""PEFT's folder: the adapter's own files where it is in that layout, byte for byte."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.formats import PEFT
from adaptry.adapters.output_folder import output_folder
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.from_mlx import pefts_layout
from adaptry.compute.exporting.options import Setting
from adaptry.compute.lazy_adapters.folder_writer import write as write_draft
from adaptry.compute.lazy_adapters.lazy_adapter import Parent


def write(parent: Parent, target: Path, setting: Setting) -> tuple[str, ...]:
    """Raises what `output_folder` raises, and `Unsupported` for a layout that is not brought into PEFT's."""
    if parent.adapter.format is not PEFT:
        draft = pefts_layout(parent, Runtime("peft"), setting)
        write_draft(draft, target, replace=setting.is_replacing, progress=setting.progress)
        return draft.notes
    content = parent.adapter.content
    with output_folder(target, replace=setting.is_replacing) as folder:
        for name in content.sizes:
            with (folder / name).open("xb") as file:
                file.writelines(content.chunks(name))
    return ()
