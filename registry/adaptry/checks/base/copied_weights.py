"""Compares the weights that an adapter replaces with the base's, at the sampled positions of its record.

At most 256 elements of each are read, in 16 short reads (`bases.fingerprinting.sketch`).
"""

from __future__ import annotations

from typing import Literal

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.header import DTYPE_BITS
from adaptry.adapters.tensor_names import normalised
from adaptry.bases.fingerprinting.dtype_cast import find_cast
from adaptry.bases.fingerprinting.sketch import sketch_tensor
from adaptry.bases.module_map import ExtraTarget
from adaptry.checks.binding import bind

Likeness = Literal["equal", "rounded", "different"]
_EQUAL = frozenset(["equal", "a change of dtype"])


def weights_of_base(adapter: Adapter, base: BaseRecord | None) -> frozenset[str]:
    """The targets whose replaced weights equal the base's own, as far as the sampled elements show.
    Embeddings and heads of which single rows are replaced are not compared.
    """
    if base is None or not adapter.format.names_modules:
        return frozenset()
    extras = bind(adapter, base).module_map.extras
    return frozenset(
        extra.extra.target
        for extra in extras
        if extra.extra.kind != "token_rows" and compare_with_base(adapter, extra, base) == "equal"
    )


def compare_with_base(adapter: Adapter, extra: ExtraTarget, base: BaseRecord) -> Likeness | None:
    """How a weight of the adapter compares with the base's weight that it replaces: whether PEFT, which casts
    the weight to the base's dtype, loads the same values. None if their shapes differ, or if the record has
    no such weight, as in the repeated layers of a deeper model.
    """
    info, stored = adapter.tensors.get(extra.extra.tensor), base.tensors.get(extra.tensor)
    sketch = base.sketches.get(extra.tensor)
    if info is None or stored is None or sketch is None or info.shape != stored.shape:
        return None
    # The positions of a tensor follow from its name in the record.
    name = normalised(base.tensors)[extra.tensor]
    own = sketch_tensor(adapter.content.reader(adapter.format.weights), info, name)
    cast = find_cast(info.dtype, own.samples, stored.dtype, sketch.samples)
    if cast is None:
        return "different"
    is_wider = DTYPE_BITS[info.dtype] > DTYPE_BITS[stored.dtype]  # PEFT rounds it to the base's dtype at load
    return "equal" if cast in _EQUAL or is_wider else "rounded"
