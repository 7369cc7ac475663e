"""A signature: an adapter's update in a few numbers, which are similar for similar adapters.

The product up · down of every site is sketched without being formed (Pagh 2013, "Compressed Matrix
Multiplication"): a count sketch of each column of `up` and of each row of `down`, convolved. The sketch of a
sum is the sum of the sketches, and the inner product of two sketches is that of the updates, with an error of
about ‖Δ_a‖·‖Δ_b‖/√1024. The positions are hashed from the sites' names with SHAKE-256, so signatures are
comparable across machines and versions.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from adaptry.compute.comparison.aggregate import cosine
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.tensors.lowrank import Factors, inner_product

SKETCH_WIDTH = 1024
"""Numbers in a sketch: a power of two that fits into two bytes together with a sign bit."""
SIGNATURE_LAYOUT = 1


class Signature(BaseModel):
    """`norm` is the exact ‖Δ‖ over all sites; `sketch` is SKETCH_WIDTH little-endian float32 numbers in
    base64.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    layout: int = Field(default=SIGNATURE_LAYOUT, ge=SIGNATURE_LAYOUT, le=SIGNATURE_LAYOUT)
    norm: float = Field(ge=0, allow_inf_nan=False)
    modules: int
    sketch: str = Field(min_length=4 * (SKETCH_WIDTH * 4 // 3), max_length=4 * (SKETCH_WIDTH * 4 // 3 + 3))

    @classmethod
    def of(cls, updates: AdapterDeltas) -> Self:
        """The signature of an adapter. Reads every weight once, one site at a time."""
        total = torch.zeros(SKETCH_WIDTH, dtype=torch.float64)
        energy = 0.0
        for site in updates.modules:
            update = updates.factors(site)
            energy += inner_product(update, update)
            total += _sketched(site, update)
        return cls(
            norm=math.sqrt(max(0.0, energy)),
            modules=len(updates.modules),
            sketch=base64.b64encode(total.float().numpy().tobytes()).decode(),
        )

    def numbers(self) -> Tensor:
        """The sketch [SKETCH_WIDTH] in float64."""
        return torch.frombuffer(bytearray(base64.b64decode(self.sketch)), dtype=torch.float32).double()


def estimate_cosine(one: Signature, other: Signature) -> float:
    """An estimate of the cosine between two updates (see `cosine_margin`); 0 if one is 0."""
    a, b = one.numbers(), other.numbers()
    return cosine(float(a @ b), float(a.norm()), float(b.norm())) or 0.0


def cosine_margin(of: float) -> float:
    """The largest amount by which an estimate may be below a cosine of `of`: five standard deviations (1 −
    of²)/√WIDTH, doubled for updates that are far from random.
    """
    return 0.02 + 10 * (1 - of * of) / math.sqrt(SKETCH_WIDTH)


def _sketched(site: WeightSite, update: Factors) -> Tensor:
    """The sketch [SKETCH_WIDTH] in float64."""
    up = update.up.double().reshape(-1, *update.up.shape[-2:])
    down = update.down.double().reshape(-1, *update.down.shape[-2:])
    total = torch.zeros(SKETCH_WIDTH, dtype=torch.float64)
    for matrix in range(len(up)):
        written = _counted(up[matrix], f"{site.key}\0{matrix}\0out")
        read = _counted(down[matrix].T, f"{site.key}\0{matrix}\0in")
        product = torch.fft.rfft(written, dim=0) * torch.fft.rfft(read, dim=0)
        total += torch.fft.irfft(product.sum(-1), n=SKETCH_WIDTH)
    return total * update.scale


def _counted(vectors: Tensor, name: str) -> Tensor:
    """Counts sketches of the columns of `vectors` [n, r]: [WIDTH, r]."""
    hashed = bytearray(hashlib.shake_256(name.encode()).digest(2 * len(vectors)))
    drawn = torch.frombuffer(hashed, dtype=torch.int16).long()
    sign = torch.where(drawn < 0, -1.0, 1.0).double()
    sketch = torch.zeros(SKETCH_WIDTH, vectors.shape[1], dtype=torch.float64)
    return sketch.index_add_(0, drawn & (SKETCH_WIDTH - 1), vectors * sign.unsqueeze(-1))
