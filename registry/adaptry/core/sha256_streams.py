"""SHA-256 of several streams at once on one core, faster than one after another.

    file, tensor = Sha256Stream(), Sha256Stream()
    update_together([(file, chunk), (tensor, chunk[8:])])

Each SHA instruction of a stream waits for the previous one, and the processor idles meanwhile. The compiled
loop (`sha256_ir`) interleaves two streams: on an Intel Xeon, 1.3 times as fast for data in the core's cache,
1.6 times for data in memory. It needs llvmlite and an x86 processor with SHA instructions, and is compared
with hashlib when it is first used. Otherwise, hashlib hashes the streams one after another.

Loading llvmlite and compiling take some 80 ms, once per process (`is_worth_compiling`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import struct
import threading
from collections.abc import Sequence
from typing import Any

from adaptry.core.sha256_ir import LANES, STATE_ORDER, module_source

_BLOCK = 64
_WORTH_COMPILING = 1 << 30
_INITIAL = struct.unpack(">8I", bytes.fromhex(
    "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"
))  # fmt: skip  # FIPS 180-4, section 5.3.3

Bytes = bytes | bytearray | memoryview


class Sha256Stream:
    """The SHA-256 of the bytes given to `update`, like `hashlib.sha256()`. One thread may use it at a time.

    Without `is_interleaved`, hashlib computes it and llvmlite is not loaded; use this for small amounts of
    data.
    """

    def __init__(self, is_interleaved: bool = True) -> None:
        self._alone = None if is_interleaved and _program() else hashlib.sha256()
        self._state = _new_state()
        self._begun = ctypes.create_string_buffer(_BLOCK)  # the beginning of an incomplete block
        self._length = 0

    def update(self, data: Bytes) -> None:
        """Appends contiguous bytes; the interpreter lock is released meanwhile."""
        update_together([(self, data)])

    def digest(self) -> bytes:
        """The 32 bytes of the digest of everything so far; more may follow."""
        if self._alone is not None:
            return self._alone.digest()
        state = (ctypes.c_uint32 * 8)(*self._state)
        rest = self._begun.raw[: self._length % _BLOCK] + _padding(self._length)
        padded = ctypes.create_string_buffer(rest, len(rest))
        _run([(ctypes.addressof(state), ctypes.addressof(padded), len(rest) // _BLOCK)])
        return _digest(state)

    def hexdigest(self) -> str:
        """Like `digest`, in 64 hexadecimal digits."""
        return self.digest().hex()

    def _take(self, view: _BufferView) -> _Lane:
        """Completes the begun block, and keeps what follows the last whole block."""
        address, size = view.buf or 0, view.len
        state, begun = ctypes.addressof(self._state), ctypes.addressof(self._begun)
        filled = self._length % _BLOCK
        self._length += size
        if filled:
            taken = min(_BLOCK - filled, size)
            ctypes.memmove(begun + filled, address, taken)
            address, size = address + taken, size - taken
            if filled + taken < _BLOCK:
                return state, address, 0
            _run([(state, begun, 1)])
        blocks, rest = divmod(size, _BLOCK)
        ctypes.memmove(begun, address + blocks * _BLOCK, rest)
        return state, address, blocks


def update_together(pieces: Sequence[tuple[Sha256Stream, Bytes]]) -> None:
    """Appends contiguous bytes to each of several different streams; best for two pieces of equal size, of
    64 KiB or more, which stay in the core's cache.

    Raises `ValueError` if a stream occurs twice, and `BufferError` if bytes are not contiguous.
    """
    if len({id(stream) for stream, _ in pieces}) < len(pieces):
        raise ValueError("each piece needs its own stream")
    views: list[_BufferView] = []
    try:
        for _, data in pieces:
            views.append(_view(data))
        lanes: list[_Lane] = []
        for (stream, data), view in zip(pieces, views, strict=True):
            if stream._alone is not None:
                stream._alone.update(data)
            else:
                lanes.append(stream._take(view))
        _run(lanes)
    finally:
        for view in views:
            ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))


def can_interleave() -> bool:
    """Whether this machine can hash streams together instead of one after another."""
    return _program() is not None


def is_worth_compiling(size: int) -> bool:
    """Whether hashing this many bytes, of all streams, justifies compiling the loop; True once it is
    compiled.
    """
    return size >= _WORTH_COMPILING or bool(_compiled)


_Lane = tuple[int, int, int]
"""The addresses of a state and of its data, and the number of whole blocks there."""


def _run(lanes: Sequence[_Lane]) -> None:
    """Hashes all blocks. The longest lanes come first, so that their ends are not hashed alone."""
    left = [lane for lane in lanes if lane[2]]
    program = _program() if left else None
    while left and program is not None:
        left.sort(key=lambda lane: -lane[2])
        now, waiting = left[:LANES], left[LANES:]
        blocks = now[-1][2]
        program.hash(now, blocks)
        rest = ((state, at + blocks * _BLOCK, count - blocks) for state, at, count in now)
        left = [*(lane for lane in rest if lane[2]), *waiting]


class _Program:
    """The compiled functions for one lane and for two."""

    def __init__(self) -> None:
        from adaptry.core.compiled_module import CompiledModule

        self._module = CompiledModule(module_source())  # owns the code
        address: type[Any] = ctypes.c_void_p
        self._functions = [
            self._module.function(f"sha256_{lanes}", *[address] * (2 * lanes), ctypes.c_int64)
            for lanes in range(1, LANES + 1)
        ]

    def hash(self, lanes: Sequence[_Lane], blocks: int) -> None:
        """Hashes the first `blocks` blocks of each lane."""
        self._functions[len(lanes) - 1](*(value for state, at, _ in lanes for value in (state, at)), blocks)


class _BufferView(ctypes.Structure):
    """`Py_buffer`, whose layout is part of CPython's stable interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _view(data: Bytes) -> _BufferView:
    """Locks the memory of `data` until the view is released."""
    view = _BufferView()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0)
    return view


_compiling = threading.Lock()
_compiled: list[_Program | None] = []  # at most one


def _program() -> _Program | None:
    """The compiled functions; None if this machine cannot run them."""
    if not _compiled:
        with _compiling:
            if not _compiled:
                program = _Program() if _is_supported() else None
                _compiled.append(program if program and _agrees_with_hashlib(program) else None)
    return _compiled[0]


def _is_supported() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        from adaptry.core.compiled_module import has_cpu_feature
    except (ImportError, OSError, RuntimeError):  # missing, or its library does not load
        return False
    return all(has_cpu_feature(name) for name in ("sha", "ssse3", "sse4.1"))


def _agrees_with_hashlib(program: _Program) -> bool:
    """Whether each function gives hashlib's digests of random bytes."""
    for count in range(1, LANES + 1):
        data = [os.urandom(3 * _BLOCK) for _ in range(count)]
        states = [_new_state() for _ in data]
        padded = [ctypes.create_string_buffer(each + _padding(len(each))) for each in data]
        addresses = zip(map(ctypes.addressof, states), map(ctypes.addressof, padded), strict=True)
        program.hash([(state, at, 4) for state, at in addresses], 4)
        if [_digest(state) for state in states] != [hashlib.sha256(each).digest() for each in data]:
            return False
    return True


def _new_state() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 8)(*(_INITIAL[place] for place in STATE_ORDER))


def _digest(state: ctypes.Array[ctypes.c_uint32]) -> bytes:
    return struct.pack(">8I", *(state[STATE_ORDER.index(word)] for word in range(8)))


def _padding(length: int) -> bytes:
    """The end of the last block or the last two, after `length` bytes (FIPS 180-4, section 5.1.1)."""
    return b"\x80" + bytes((_BLOCK - 9 - length) % _BLOCK) + struct.pack(">Q", 8 * length)
