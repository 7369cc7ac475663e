"""Conversion of stored elements to float32 and back, in LLVM IR."""

from __future__ import annotations

from string import Template

from adaptry.compute.tensors.llvm_ir import CONVERT

_EACH = Template("""
define void @$name(ptr noalias %W, ptr noalias %O, i64 %count) {
entry:
  br label %each
each:
  %i = phi i64 [0, %entry], [%i.next, %each]
  %w.p = getelementptr $el, ptr %W, i64 %i
  %o.p = getelementptr $out, ptr %O, i64 %i
  %$from = load <32 x $el>, ptr %w.p, align 2
$converted
  store <32 x $out> %$to, ptr %o.p, align 2
  %i.next = add i64 %i, 32
  %done = icmp uge i64 %i.next, %count
  br i1 %done, label %end, label %each
end:
  ret void
}
""")


def widen_source(dtype: str) -> str:
    """@widen(W, O, count): `count` elements of the dtype, rounded up to 32, converted to float32."""
    element, widen, _ = CONVERT[dtype]
    converted = Template(widen).substitute(q="0")
    return _EACH.substitute(
        {"name": "widen", "el": element, "out": "float", "from": "w0", "to": "f0", "converted": converted}
    )


def narrow_source(dtype: str) -> str:
    """@narrow(W, O, count): `count` float32 numbers, rounded up to 32, converted to the dtype."""
    element, _, narrow = CONVERT[dtype]
    converted = Template(narrow).substitute(q="0")
    return _EACH.substitute(
        {"name": "narrow", "el": "float", "out": element, "from": "y0", "to": "h0", "converted": converted}
    )
