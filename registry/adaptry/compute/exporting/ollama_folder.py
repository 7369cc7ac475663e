"""Writes a folder for `ollama create`: a Modelfile, and the adapter as GGUF.

Ollama itself can convert safetensors only for three families, and only with a whole number for alpha; a GGUF
has no such limits.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.output_folder import output_folder
from adaptry.compute.exporting import gguf_file
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

MODELFILE = "Modelfile"


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the folder. Raises the errors of `gguf_file.write`."""
    name = options.base_name or parent.adapter.config.base_name or "BASE"
    with output_folder(target, replace=options.may_replace, sources=[parent.adapter.content]) as folder:
        notes = gguf_file.write_into(parent, folder, options)
        text = (
            f"# Ollama's name for {name}: a model of its library, or a GGUF file\nFROM {name}\nADAPTER"
            f" ./{gguf_file.NAME}\n"
        )
        (folder / MODELFILE).write_text(text, encoding="utf-8")
    return (*notes, f"FROM in the {MODELFILE} is {name}: replace it by Ollama's name for that base")
