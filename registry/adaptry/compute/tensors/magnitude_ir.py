"""A histogram of magnitudes by their leading bits, and the members of one bin, in LLVM IR.

The bits of positive float32 numbers have the same order as their values. So the leading bits, without the
sign, number the bins of a histogram with logarithmic scale.
"""

from __future__ import annotations

import ctypes
from string import Template

from adaptry.compute.tensors.llvm_ir import compile_once
from adaptry.core.compiled_module import CompiledModule

_LANES = 8  # elements; counts of elements are multiples of it

_LOOP = Template("""
define void @$name(ptr noalias %D, i64 %count, i32 %shift, $parameters) {
entry:
$begin
  %by.one = insertelement <$n x i32> poison, i32 %shift, i64 0
  %by = shufflevector <$n x i32> %by.one, <$n x i32> poison, <$n x i32> zeroinitializer
  br label %each
each:
  %i = phi i64 [0, %entry], [%i.next, %each]
$phi
  %p = getelementptr i32, ptr %D, i64 %i
  %x = load <$n x i32>, ptr %p, align 4
  %bits = and <$n x i32> %x, $mask
  %bins = lshr <$n x i32> %bits, %by
$steps
  %i.next = add i64 %i, $n
  %done = icmp uge i64 %i.next, %count
  br i1 %done, label %end, label %each
end:
$finish
  ret void
}
""")

_COUNT = Template("""
  %b$e = extractelement <$n x i32> %bins, i64 $e
  %c.p$e = getelementptr i32, ptr %counts, i32 %b$e
  %c$e = load i32, ptr %c.p$e, align 4
  %c.n$e = add i32 %c$e, 1
  store i32 %c.n$e, ptr %c.p$e, align 4""")

_COLLECT = Template("""
  %b$e = extractelement <$n x i32> %bins, i64 $e
  %v$e = extractelement <$n x i32> %bits, i64 $e
  %o.p$e = getelementptr i32, ptr %found, i64 %m$e
  store i32 %v$e, ptr %o.p$e, align 4
  %is$e = icmp eq i32 %b$e, %bin
  %one$e = zext i1 %is$e to i64
  %m$next = add i64 %m$e, %one$e""")


class CompiledMagnitudes:
    """`count(D, count, shift, counts)` adds to counts [bins] of uint32. `collect(D, count, shift, bin, found,
    size)` appends the magnitudes of one bin to `found`, which has room for one more than all of them, and
    adds to the `size` (int64). D is float32, and its count a multiple of 8.
    """

    def __init__(self) -> None:
        pointer, size, single = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
        self._module = CompiledModule(_source())
        self.count = self._module.function("count", pointer, size, single, pointer)
        self.collect = self._module.function("collect", pointer, size, single, single, pointer, pointer)


compiled_magnitudes = compile_once(CompiledMagnitudes)


def _source() -> str:
    n, each = _LANES, range(_LANES)
    mask = "<" + ", ".join([f"i32 {0x7FFFFFFF}"] * n) + ">"
    return _LOOP.substitute(
        name="count",
        n=n,
        mask=mask,
        parameters="ptr noalias %counts",
        begin="",
        phi="",
        steps="".join(_COUNT.substitute(n=n, e=e) for e in each),
        finish="",
    ) + _LOOP.substitute(
        name="collect",
        n=n,
        mask=mask,
        parameters="i32 %bin, ptr noalias %found, ptr noalias %size",
        begin="  %m.first = load i64, ptr %size, align 8",
        phi=f"  %m0 = phi i64 [%m.first, %entry], [%m{n}, %each]",
        steps="".join(_COLLECT.substitute(n=n, e=e, next=e + 1) for e in each),
        finish=f"  store i64 %m{n}, ptr %size, align 8",
    )
