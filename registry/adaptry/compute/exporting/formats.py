"""The export formats, each with a function and an entry here.

The function writes a folder that appears atomically, and returns notes for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from adaptry.checks.runtimes import repairs
from adaptry.compute.exporting import (
    artifact_layout,
    checkpoint_folder,
    gguf_file,
    mlx_folder,
    ollama_folder,
    peft_folder,
    pipeline_file,
)
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.lazy_dataclass import dataclass

Notes = tuple[str, ...]
WriteFunction = Callable[[ParentAdapter, Path, ExportOptions], Notes]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """`written_files`, `reader` (which programs read them) and `tested_with` (the real program in our tests)
    are for the page.

    `handled_remedies`: remedies that become unnecessary with this format. `engine`: the engine to which the
    format belongs, for which an adapter is repaired by default. `needs_base`: whether headers and config of
    the base are needed.
    """

    name: str
    written_files: str
    reader: str
    tested_with: str
    write: WriteFunction
    engine: str | None = None
    needs_base: bool = False
    handled_remedies: tuple[str, ...] = ()


_ALL = (
    ExportFormat(
        "peft",
        "`adapter_config.json`, `adapter_model.safetensors`",
        "PEFT, vLLM, SGLang and others",
        "PEFT 0.21",
        peft_folder.write,
    ),
    ExportFormat(
        "checkpoint",
        "the base's files, with the update merged into the weights",
        "every program that loads the base",
        "transformers 5",
        checkpoint_folder.write,
        needs_base=True,
    ),
    ExportFormat(
        "gguf",
        "`adapter.gguf`",
        "llama.cpp (`--lora adapter.gguf`)",
        "llama.cpp through xllamacpp, and llama.cpp's converter for comparison",
        gguf_file.write,
        "llama.cpp",
        needs_base=True,
        handled_remedies=(repairs.FILL_EXPERTS, repairs.WRITE_GGUF),
    ),
    ExportFormat(
        "ollama",
        "`Modelfile` and `adapter.gguf`",
        "Ollama (`ollama create NAME -f Modelfile`)",
        "llama.cpp, for the GGUF; Ollama itself was not run",
        ollama_folder.write,
        "ollama",
        needs_base=True,
    ),
    ExportFormat(
        "mlx",
        "`adapter_config.json`, `adapters.safetensors`",
        "mlx-lm (`--adapter-path`)",
        "mlx-lm 0.32",
        mlx_folder.write,
        needs_base=True,
    ),
    ExportFormat(
        "diffusers",
        "`pytorch_lora_weights.safetensors`",
        "diffusers (`load_lora_weights`)",
        "diffusers 0.42",
        pipeline_file.write_diffusers,
        "diffusers",
        handled_remedies=(repairs.ONE_ALPHA, repairs.WRITE_ANEW),
    ),
    ExportFormat(
        "kohya",
        "`lora.safetensors`",
        "kohya's sd-scripts and the interfaces built on it",
        "diffusers 0.42, which reads these names too",
        pipeline_file.write_kohya,
    ),
    ExportFormat(
        "oci",
        "an OCI image layout (`oci-layout`, `index.json`, `blobs/`)",
        "any OCI registry and client",
        "skopeo, and Docker's registry",
        artifact_layout.write,
    ),
)

FORMATS: Mapping[str, ExportFormat] = {format.name: format for format in _ALL}
FORMAT_OF_ENGINE: Mapping[str, str] = {format.engine: format.name for format in _ALL if format.engine}
"""Formats by engine, for engines that do not read PEFT's folder."""
