"""Counts the effect of a merge on values while they are written: how many differ from the base's, and how
many became infinite or NaN.

The compiled kernel counts both while a block is in cache. Otherwise, the base's block is read again and
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adaptry.checks.finding_text import format_count
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.tensors.kernel import BlockTally
from adaptry.core.errors import CheckFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[Any]

Bytes = memoryview | bytes

_IN_CACHE = 1 << 16
"""Values that are compared at once, so that the intermediate arrays stay in a core's cache."""
# For each floating-point dtype: bytes per value, and the bits of infinity, which exceed those of finite
# values.
_INFINITY = {"BF16": (2, 0x7F80), "F16": (2, 0x7C00), "F32": (4, 0x7F800000), "F64": (8, 0x7FF0 << 48)}


class ValueTally:
    """The tally of one tensor, for one thread. `changed` is the number of values that differ from the base's,
    rounded to the result's dtype, if an adapter changes the tensor. `non_finite` is the number of values that
    are infinite or NaN but were finite in the base.
    """

    def __init__(self, tensor: OutputTensor) -> None:
        self.tensor = tensor
        self.changed = 0
        self.non_finite = 0

    @property
    def is_changed(self) -> bool:
        return self.changed > 0

    def add(
        self,
        result: Bytes,
        read_source: Callable[[], Bytes],
        source_dtype: str,
        known: BlockTally | None = None,
    ) -> None:
        """Counts a run of the result's bytes. `read_source` returns the base's bytes for the same elements;
        they are fewer if the result has more rows than the base. `known`: the kernel's own counts, if any.
        """
        dtype = self.tensor.dtype
        if known is None:
            known = BlockTally(dtype not in _INFINITY or _is_finite(_integers(result, dtype), dtype), None)
        changed = known.changed if self.tensor.is_adapted else 0
        if known.is_finite and changed is not None:
            self.changed += changed
            return
        source = read_source()
        self.changed += _count_changed(result, source, dtype, source_dtype) if changed is None else changed
        if not known.is_finite:
            self.non_finite += _count_new(result, source, dtype, source_dtype)


def require_finite(counts: Mapping[str, int], dtype: str) -> None:
    """Raises `CheckFailed` if values became infinite or NaN. `counts` is their number by tensor; `dtype` is
    that of the first such tensor in the result.
    """
    found = {name: count for name, count in counts.items() if count}
    if not found:
        return
    longer = "" if dtype != "F16" else ", or --dtype float32 (or bfloat16)"
    raise CheckFailed(
        f"the result would have {format_count(sum(found.values()), 'infinite or NaN value')} that the base"
        f" does not have, in {format_count(len(found), 'tensor')} (first: {next(iter(found))}): values"
        f" exceed the range of {dtype}. Choose smaller weights{longer}"
    )


def _integers(data: Bytes, dtype: str) -> Integers:
    """The values' bits as signed integers."""
    import numpy as np

    return np.frombuffer(data, f"<i{_INFINITY[dtype][0]}")


def _is_finite(bits: Integers, dtype: str) -> bool:
    """Whether all values are finite: as signed integers, the largest belongs to the largest positive value;
    as unsigned ones, to the largest negative value.
    """
    if not bits.size:
        return True
    width, infinity = _INFINITY[dtype]
    sign = 1 << (8 * width - 1)
    return int(bits.max()) < infinity and int(bits.view(f"<u{width}").max()) < infinity | sign


def _count_changed(result: Bytes, source: Bytes, dtype: str, source_dtype: str) -> int:
    """The number of values that differ, or are missing in `source`. Zeros of either sign are equal."""
    import numpy as np

    if dtype not in _INFINITY:
        found, wanted = np.frombuffer(result, np.uint8), np.frombuffer(source, np.uint8)
        return int(np.count_nonzero(found != wanted))
    found, wanted = _integers(result, dtype), _integers(_cast(source, source_dtype, dtype), dtype)
    both = min(len(found), len(wanted))
    count = len(found) - both
    for first in range(0, both, _IN_CACHE):
        end = min(both, first + _IN_CACHE)
        one, other = found[first:end], wanted[first:end]
        is_changed = one != other
        is_changed &= ((one | other) << 1) != 0  # without the sign
        count += int(np.count_nonzero(is_changed))
    return count


def _count_new(result: Bytes, source: Bytes, dtype: str, source_dtype: str) -> int:
    """The number of values that are infinite or NaN in `result` but finite, or missing, in `source`."""
    import numpy as np

    bad = _is_non_finite(_integers(result, dtype), dtype)
    if source_dtype in _INFINITY:
        was_bad = _is_non_finite(_integers(source, source_dtype), source_dtype)[: len(bad)]
        bad[: len(was_bad)] &= ~was_bad
    return int(np.count_nonzero(bad))


def _is_non_finite(bits: Integers, dtype: str) -> Integers:
    infinity = _INFINITY[dtype][1]
    found: Integers = (bits & infinity) == infinity
    return found


def _cast(data: Bytes, source_dtype: str, dtype: str) -> Bytes:
    if source_dtype == dtype:
        return data
    import torch

    from adaptry.compute.tensors.adapter_tensors import DTYPES

    if not len(data):
        return data
    values = torch.frombuffer(bytearray(data), dtype=DTYPES[source_dtype]).to(DTYPES[dtype])
    cast: Bytes = values.view(torch.uint8).numpy().data
    return cast
