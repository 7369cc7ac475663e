"""Whether all updates of an adapter are zero, found by reading as little of its weights as possible.

`checks.weights` reads every tensor. Here, the first kilobytes of a factor show that it is not zero, and the
search ends at the first module that changes something, so thousands of adapters can be scanned.
"""

from __future__ import annotations

from functools import cache

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.checks.weights import tensors_by_role

_FIRST = 4096
_CHUNK = 1 << 20
_ONES = {"F64": b"\0\0\0\0\0\0\xf0\x3f", "F32": b"\0\0\x80\x3f", "F16": b"\0\x3c", "BF16": b"\x80\x3f"}
"""The number 1 in each dtype, little-endian."""


def has_zero_updates(adapter: Adapter) -> bool:
    """Whether no module has an update, as before the first training step. False if the values of its tensors
    do not show it, as for PiSSA, and for an adapter without modules. Weights that the adapter replaces, and a
    DoRA's magnitudes, may change the model nevertheless.
    """
    method = METHODS.get(adapter.spec.method)
    if method is None or not adapter.spec.modules or method.is_relative(adapter.spec.traits):
        return False

    @cache
    def constant(name: str) -> int | None:
        return _constant_value(adapter, name)

    for module in adapter.spec.modules:
        roles = tensors_by_role({**adapter.spec.shared, **module.tensors})
        zeros = {name for name in roles.values() if constant(name) == 0}
        ones = {name for name in roles.values() if constant(name) == 1}
        is_idle = method.changes_nothing(roles, zeros, ones)
        if not is_idle and not method.changes_by_base_numbers(roles, zeros, ones):
            return False
    return True


def _constant_value(adapter: Adapter, name: str) -> int | None:
    """0 or 1 if every element of the tensor is that number, otherwise None."""
    info = adapter.tensors[name]
    one = _ONES.get(info.dtype)
    found: int | None = None
    done = 0
    while done < info.size:
        length = min(_CHUNK if done else _FIRST, info.size - done)
        data = adapter.content.read(adapter.format.weights, info.start + done, length)
        value = _value_of(data, one)
        if value is None or found not in (None, value):
            return None
        found, done = value, done + len(data)
    return found


def _value_of(data: bytes, one: bytes | None) -> int | None:
    """The value, 0 or 1, of all numbers in these bytes of a tensor; None if they have no such value, or there
    are no bytes.
    """
    if data and not any(data):
        return 0
    return 1 if data and one and data == one * (len(data) // len(one)) else None
