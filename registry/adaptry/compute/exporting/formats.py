"""The formats an adapter is exported in: one function each, and one entry here.

A function writes a folder that appears whole or not at all, and tells what the reader of it should know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

Notes = tuple[str, ...]
WriteFunction = Callable[[ParentAdapter, Path, ExportOptions], Notes]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """`written_files`: for the page; `reader`: who reads them; `tested_with`: the real program in our tests.

    `handled_remedies`: remedies of that engine for what its other files cannot say, and these can. `engine`:
    the one whose files these are, for which it is repaired where nothing else is said; `needs_base`: whether
    headers and config of the base are needed.
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
        "PEFT, vLLM, SGLang and the like",
        "PEFT 0.21",
        peft_folder.write,
    ),
    ExportFormat(
        "checkpoint",
        "the base's files with the update in its weights",
        "whatever loads the base",
        "transformers 5",
        checkpoint_folder.write,
        needs_base=True,
    ),
    ExportFormat(
        "gguf",
        "`adapter.gguf`",
        "llama.cpp (`--lora adapter.gguf`)",
        "llama.cpp through xllamacpp, and llama.cpp's own converter for comparison",
        gguf_file.write,
        "llama.cpp",
        needs_base=True,
    ),
    ExportFormat(
        "ollama",
        "`Modelfile` and `adapter.gguf`",
        "Ollama (`ollama create NAME -f Modelfile`)",
        "the GGUF by llama.cpp; Ollama itself was not run",
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
"""What an engine is given where it is not PEFT's folder."""
