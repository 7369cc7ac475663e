"""Computes a lazy adapter and writes it like `save_pretrained`, into a folder that appears atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.formats import CONFIG, WEIGHTS
from adaptry.adapters.output_folder import output_folder
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter
from adaptry.compute.lazy_adapters.tensor_file import write_tensors
from adaptry.compute.torch_requirement import require_torch
from adaptry.core.display import format_count, format_number, short_repr
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ModuleFigures:
    """The figures of one computed module (see `ComputedModule.figures`)."""

    module: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ComputeResult:
    """The result of computing an adapter: figures by module, in the order of computation, and in total."""

    modules: tuple[ModuleFigures, ...]

    @property
    def kept(self) -> float | None:
        """The share of the energy ‖Δ‖² that was kept, over all modules; None if everything is exact."""
        measured = [each.figures for each in self.modules if "energy" in each.figures]
        if not measured:
            return None
        energy = sum(figures["energy"] for figures in measured)
        return 1.0 - sum(figures.get("lost", 0.0) for figures in measured) / energy if energy else 1.0

    @property
    def error(self) -> float:
        """‖Δ − Δ'‖ / ‖Δ‖ over all modules."""
        return math.sqrt(max(0.0, 1.0 - (1.0 if self.kept is None else self.kept)))

    @property
    def zero_modules(self) -> tuple[str, ...]:
        """The modules whose update is 0, because the updates of the parents cancel each other."""
        return tuple(each.module for each in self.modules if each.figures.get("energy") == 0.0)

    def __repr__(self) -> str:
        kept = "exact" if self.kept is None else f"energy kept {format_number(self.kept)}"
        return short_repr(self, format_count(len(self.modules), "module"), kept)


def write_adapter(
    adapter: LazyAdapter, target: Path, *, replace: bool = False, progress: Progress = no_progress
) -> ComputeResult:
    """Computes the adapter into the folder `target`, which appears complete or not at all.

    Raises `MissingDependency` (no torch), the errors of `output_folder`, and the errors of the adapter's
    `compute`.
    """
    require_torch("this needs torch")
    with output_folder(target, replace=replace) as folder:
        return write_adapter_into(adapter, folder, progress)


def write_adapter_into(adapter: LazyAdapter, folder: Path, progress: Progress = no_progress) -> ComputeResult:
    """Writes the adapter's files into an empty folder that the caller manages. Raises the errors of
    `compute`, and `Invalid` if a file of a parent changed in the meantime.
    """
    require_torch("this needs torch")
    figures: list[ModuleFigures] = []
    shapes = write_tensors(folder / WEIGHTS, adapter.names, _computed_tensors(adapter, figures, progress))
    text = json.dumps(adapter.config(shapes), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    for name, content in adapter.extra_files.items():
        with (folder / name).open("xb") as file:
            file.writelines(content.chunks(name))
    for parent in adapter.parents:
        parent.adapter.content.check_unchanged()
    return ComputeResult(tuple(figures))


def _computed_tensors(
    adapter: LazyAdapter, figures: list[ModuleFigures], progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    total = sum(parent.adapter.spec.size for parent in adapter.parents)
    done = 0
    for made in adapter.compute():
        yield from made.tensors.items()
        figures.append(ModuleFigures(made.module, made.figures))
        done += len(made.tensors)
        progress("computing", total * min(done, len(adapter.names)) // max(1, len(adapter.names)), total)
