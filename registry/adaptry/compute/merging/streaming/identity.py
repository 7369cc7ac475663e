"""Names for bytes that have not been computed yet, from their inputs, their layout and the computing
libraries.

Two servers that would compute different bytes give them different names, so a reader never joins parts of
different files. The compiled kernel gives the same bits on every processor. Torch's products depend on its
BLAS, so torch's release and the processor's features are part of the name. The same applies to numpy's
functions and its release.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping

from adaptry.compute.merging.kernels import KernelChoice
from adaptry.compute.merging.plan import MergePlan
from adaptry.core.digest import Digest

ARITHMETIC = 3
"""Incremented whenever a change to the code gives other bytes for the same inputs, so that old caches are not
used."""


def arithmetic_versions(plan: MergePlan, kernels: KernelChoice) -> tuple[str, ...]:
    """The versions of the libraries and kernels that determine this plan's bytes."""
    names = [f"{name}{_release(name)}" for name in kernels.names_for(plan.changed_tensors)]
    formulas = (kernels.formula(tensor) for tensor in plan.changed_tensors)
    if any(formula is not None and formula.uses_numpy for formula in formulas):
        names.append(_numpy_release())
    return tuple(names)


def layout_digest(plan: MergePlan, adapter: Digest, computed_by: tuple[str, ...]) -> Digest:
    """A name for all weights of a plan that merges the revision `adapter`."""
    rounding = {} if plan.rounding == "float32" else {"rounding": plan.rounding}
    named = {
        **rounding,
        "arithmetic": (ARITHMETIC, *computed_by),
        "base": str(plan.base),
        "adapter": str(adapter),
        "copy": plan.base_copy.kind if plan.base_copy else None,
        "files": {file.name: hashlib.sha256(file.header).hexdigest() for file in plan.files},
    }
    return Digest.of(json.dumps(named, sort_keys=True).encode())


def file_tag(layout: Digest, file: str) -> Digest:
    """The name of one weights file."""
    return Digest.of(f"{layout}/{file}".encode())


def model_identity(layout: Digest, others: Mapping[str, Digest]) -> Digest:
    """The name of the whole model: of the weights, and of the other files by their digests."""
    named = {name: str(digest) for name, digest in others.items()}
    return Digest.of(json.dumps([str(layout), named], sort_keys=True).encode())


def _release(kernel: str) -> str:
    if kernel == "llvm":
        return ""
    import torch

    return f" {torch.__version__} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _numpy_release() -> str:
    import llvmlite.binding as llvm
    import numpy as np

    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    processor = f"{platform.machine()} {llvm.get_host_cpu_name()} {' '.join(features)}"
    return f"numpy {np.__version__} {processor}"
