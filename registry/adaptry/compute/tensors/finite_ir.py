"""The largest magnitude of stored floats, in LLVM IR: whether all of them are finite.

Without its sign, a float's bits as an integer grow with its magnitude; infinity and NaN have the largest.
"""

from __future__ import annotations

from string import Template

from adaptry.compute.tensors.llvm_ir import WIDTH

_INTEGER = {"BF16": "i16", "F16": "i16", "F32": "i32"}

INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
"""The bits of infinity, by dtype. Larger ones are those of a NaN."""

_LARGEST = Template("""
declare <$n x $el> @llvm.umax.v$n$el(<$n x $el>, <$n x $el>)
declare $el @llvm.vector.reduce.umax.v$n$el(<$n x $el>)
define void @largest(ptr %W, i64 %count, ptr %O) {
entry:
  br label %each
each:
  %i = phi i64 [0, %entry], [%i.next, %each]
  %m = phi <$n x $el> [zeroinitializer, %entry], [%m.next, %each]
  %p = getelementptr $el, ptr %W, i64 %i
  %w = load <$n x $el>, ptr %p, align 2
  %a = and <$n x $el> %w, $mask
  %m.next = call <$n x $el> @llvm.umax.v$n$el(<$n x $el> %m, <$n x $el> %a)
  %i.next = add i64 %i, $n
  %done = icmp uge i64 %i.next, %count
  br i1 %done, label %end, label %each
end:
  %r = call $el @llvm.vector.reduce.umax.v$n$el(<$n x $el> %m.next)
  %r.wide = zext $el %r to i64
  store i64 %r.wide, ptr %O, align 8
  ret void
}
""")


def largest_source(dtype: str) -> str:
    """@largest(W, count, O): the largest bits, without the sign, of `count` elements, a positive multiple of
    32, as a 64-bit integer in O.
    """
    element = _INTEGER[dtype]
    mask = (1 << (int(element[1:]) - 1)) - 1
    return _LARGEST.substitute(n=WIDTH, el=element, mask="<" + ", ".join([f"{element} {mask}"] * WIDTH) + ">")
