"""Determines two facts about a merged block of stored floats in one pass, in LLVM IR: the largest magnitude,
which shows whether all of them are finite, and how many differ from the base's.

Without its sign, a float's bits as an integer grow with its magnitude; infinity and NaN have the largest.
"""

from __future__ import annotations

from string import Template

from adaptry.compute.tensors.llvm_ir import WIDTH

_INTEGER = {"BF16": "i16", "F16": "i16", "F32": "i32"}

INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
"""The bits of infinity, by dtype. Larger ones are those of a NaN."""

_TALLY = Template("""
declare <$n x $el> @llvm.umax.v$n$el(<$n x $el>, <$n x $el>)
declare $el @llvm.vector.reduce.umax.v$n$el(<$n x $el>)
declare i32 @llvm.vector.reduce.add.v${n}i32(<$n x i32>)
define void @tally(ptr noalias %W, ptr noalias %R, i64 %count, ptr noalias %O) {
entry:
  br label %each
each:
  %i = phi i64 [0, %entry], [%i.next, %each]
  %m = phi <$n x $el> [zeroinitializer, %entry], [%m.next, %each]
  %d = phi <$n x i32> [zeroinitializer, %entry], [%d.next, %each]
  %w.p = getelementptr $el, ptr %W, i64 %i
  %r.p = getelementptr $el, ptr %R, i64 %i
  %w = load <$n x $el>, ptr %w.p, align 2
  %r = load <$n x $el>, ptr %r.p, align 2
  %a = and <$n x $el> %r, $mask
  %m.next = call <$n x $el> @llvm.umax.v$n$el(<$n x $el> %m, <$n x $el> %a)
  %either = or <$n x $el> %w, %r
  %unsigned = and <$n x $el> %either, $mask
  %is.nonzero = icmp ne <$n x $el> %unsigned, zeroinitializer
  %is.other = icmp ne <$n x $el> %w, %r
  %is.changed = and <$n x i1> %is.other, %is.nonzero
  %one = zext <$n x i1> %is.changed to <$n x i32>
  %d.next = add <$n x i32> %d, %one
  %i.next = add i64 %i, $n
  %done = icmp uge i64 %i.next, %count
  br i1 %done, label %end, label %each
end:
  %largest = call $el @llvm.vector.reduce.umax.v$n$el(<$n x $el> %m.next)
  %largest.wide = zext $el %largest to i64
  store i64 %largest.wide, ptr %O, align 8
  %changed = call i32 @llvm.vector.reduce.add.v${n}i32(<$n x i32> %d.next)
  %changed.wide = zext i32 %changed to i64
  %changed.p = getelementptr i64, ptr %O, i64 1
  store i64 %changed.wide, ptr %changed.p, align 8
  ret void
}
""")


def tally_source(dtype: str) -> str:
    """@tally(W, R, count, O) of `count` elements, a positive multiple of 32. O gets two 64-bit integers: the
    largest bits in R, without the sign, and the number of elements of R that differ from W's. Zeros of either
    sign are equal.
    """
    element = _INTEGER[dtype]
    mask = (1 << (int(element[1:]) - 1)) - 1
    return _TALLY.substitute(n=WIDTH, el=element, mask="<" + ", ".join([f"{element} {mask}"] * WIDTH) + ">")
