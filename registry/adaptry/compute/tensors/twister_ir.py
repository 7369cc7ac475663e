"""The random numbers of `torch.rand` in float32 on a CPU, as whole numbers, by vector instructions.

torch takes the lowest 24 bits of each word of a Mersenne Twister (Matsumoto and Nishimura, 1998; MT19937).
Each word depends on earlier ones at distances of at least 227, so 16 words are computed together.
"""

from __future__ import annotations

import ctypes
from string import Template

import numpy as np
from numpy.typing import NDArray

from adaptry.compute.tensors.llvm_ir import compile_once
from adaptry.core.compiled_module import CompiledModule

BITS = 24
_SIZE, _MIDDLE, _LANES = 624, 397, 16


def _splat(value: int) -> str:
    return "<" + ", ".join([f"i32 {value}"] * _LANES) + ">"


_DRAW = Template("""
define void @draw(ptr noalias %X, i64 %count, ptr noalias %O) {
entry:
  br label %each
each:
  %i = phi i64 [0, %entry], [%i.next, %each]
  %p0 = getelementptr i32, ptr %X, i64 %i
  %p1 = getelementptr i32, ptr %p0, i64 1
  %pm = getelementptr i32, ptr %p0, i64 $middle
  %pn = getelementptr i32, ptr %p0, i64 $size
  %x0 = load $v, ptr %p0, align 4
  %x1 = load $v, ptr %p1, align 4
  %xm = load $v, ptr %pm, align 4
  %upper = and $v %x0, $high
  %lower = and $v %x1, $low
  %y = or $v %upper, %lower
  %half = lshr $v %y, $one
  %odd = and $v %x1, $one
  %is.odd = icmp ne $v %odd, zeroinitializer
  %twist = select <$n x i1> %is.odd, $v $matrix, $v zeroinitializer
  %xt = xor $v %xm, %half
  %next = xor $v %xt, %twist
  store $v %next, ptr %pn, align 4
  %t0 = lshr $v %next, $eleven
  %t1 = xor $v %next, %t0
  %t2 = shl $v %t1, $seven
  %t3 = and $v %t2, $b
  %t4 = xor $v %t1, %t3
  %t5 = shl $v %t4, $fifteen
  %t6 = and $v %t5, $c
  %t7 = xor $v %t4, %t6
  %t8 = lshr $v %t7, $eighteen
  %t9 = xor $v %t7, %t8
  %found = and $v %t9, $mask
  %o = getelementptr i32, ptr %O, i64 %i
  store $v %found, ptr %o, align 4
  %i.next = add i64 %i, $n
  %done = icmp uge i64 %i.next, %count
  br i1 %done, label %end, label %each
end:
  ret void
}
""")


@compile_once
def _compiled() -> CompiledModule:
    constants = {
        "high": 0x80000000, "low": 0x7FFFFFFF, "one": 1, "matrix": 0x9908B0DF, "eleven": 11, "seven": 7,
        "b": 0x9D2C5680, "fifteen": 15, "c": 0xEFC60000, "eighteen": 18, "mask": (1 << BITS) - 1,
    }  # fmt: skip
    splats = {name: _splat(value) for name, value in constants.items()}
    sizes = {"size": _SIZE, "middle": _MIDDLE, "n": _LANES, "v": f"<{_LANES} x i32>"}
    return CompiledModule(_DRAW.substitute({**splats, **sizes}))


class UniformNumbers:
    """The numbers that `torch.rand` draws from a new generator with this seed, each times 2²⁴. Not
    thread-safe.
    """

    def __init__(self, seed: int) -> None:
        pointer = ctypes.c_void_p
        self._draw = _compiled().function("draw", pointer, ctypes.c_int64, pointer)
        self._words = _initial_words(seed)  # the last ones, then room for the next
        self._found = np.empty(0, np.uint32)

    def take(self, count: int) -> NDArray[np.uint32]:
        """The next numbers, valid until the next call. `count` is a multiple of 16."""
        if count > len(self._found):
            self._words = np.concatenate((self._words[:_SIZE], np.empty(count, np.uint32)))
            self._found = np.empty(count, np.uint32)
        self._draw(self._words.ctypes.data, count, self._found.ctypes.data)
        self._words[:_SIZE] = self._words[count : count + _SIZE].copy()
        return self._found[:count]


def _initial_words(seed: int) -> NDArray[np.uint32]:
    words, previous = np.empty(_SIZE, np.uint32), seed & 0xFFFFFFFF
    words[0] = previous
    for place in range(1, _SIZE):
        previous = (1812433253 * (previous ^ (previous >> 30)) + place) & 0xFFFFFFFF
        words[place] = previous
    return words
