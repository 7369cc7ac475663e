"""Products of a stored weight with a thin matrix, and sums of pairs of its rows, in LLVM IR.

torch has no fixed order for sums over a side of the weight. So these sums are not bit-equal to torch's, but
more accurate: running sums in float32 are short (of every 32nd column in a part of a row, or of the rows of a
block), and are then added in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from string import Template

from adaptry.compute.tensors.llvm_ir import CONVERT, rows_at_once

_V, _D = "<32 x float>", "<32 x double>"

_NESTED = Template("""
define void @$name(ptr noalias %W, ptr noalias %F, ptr noalias %S, i64 %count, i64 %depth, i64 %ld, i64 %r) {
entry:
  br label %outer
outer:
  %i = phi i64 [0, %entry], [%i.next, %outer.end]
  br label %ranks
ranks:
  %j = phi i64 [0, %outer], [%j.next, %store]
  br label %sum
sum:
  %k = phi i64 [0, %ranks], [%k.next, %sum]
$phis
$step
  %k.next = add i64 %k, 1
  %k.done = icmp eq i64 %k.next, %depth
  br i1 %k.done, label %store, label %sum
store:
$stores
  %j.next = add i64 %j, $group
  %j.done = icmp uge i64 %j.next, %r
  br i1 %j.done, label %outer.end, label %ranks
outer.end:
  %i.next = add i64 %i, 1
  %i.done = icmp eq i64 %i.next, %count
  br i1 %i.done, label %end, label %outer
end:
  ret void
}
""")

_TIMES_STEP = Template("""
  %c = mul i64 %k, 32
  %row = mul i64 %i, %ld
  %at = add i64 %row, %c
  %w.p = getelementptr $el, ptr %W, i64 %at
  %w0 = load <32 x $el>, ptr %w.p, align 2
$widen""")
_TIMES_FMA = Template("""
  %j$q = add i64 %j, $q
  %f.r$q = mul i64 %j$q, %ld
  %f.i$q = add i64 %f.r$q, %c
  %f.p$q = getelementptr float, ptr %F, i64 %f.i$q
  %v$q = load <32 x float>, ptr %f.p$q, align 4
  %n$q = call <32 x float> @llvm.fma.v32f32(<32 x float> %f0, <32 x float> %v$q, <32 x float> %acc$q)""")
_TIMES_STORE = Template("""
$halves
  %s.r$q = mul i64 %i, %r
  %s.i$q = add i64 %s.r$q, %j
  %s.j$q = add i64 %s.i$q, $q
  %s.p$q = getelementptr double, ptr %S, i64 %s.j$q
  %s$q = load double, ptr %s.p$q, align 8
  %t$q = fadd double %s$q, %h$q.0
  store double %t$q, ptr %s.p$q, align 8""")

_ADD_STEP = Template("""
  %c = mul i64 %i, 32
  %row = mul i64 %k, %ld
  %at = add i64 %row, %c
  %w.p = getelementptr $el, ptr %W, i64 %at
  %w0 = load <32 x $el>, ptr %w.p, align 2
  %f.r = mul i64 %k, %r
  %f.j = add i64 %f.r, %j
$widen""")
_ADD_FMA = Template("""
  %f.i$q = add i64 %f.j, $q
  %f.p$q = getelementptr float, ptr %F, i64 %f.i$q
  %f.s$q = load float, ptr %f.p$q, align 4
  %f.z$q = insertelement <32 x float> poison, float %f.s$q, i64 0
  %v$q = shufflevector <32 x float> %f.z$q, <32 x float> poison, <32 x i32> zeroinitializer
  %n$q = call <32 x float> @llvm.fma.v32f32(<32 x float> %f0, <32 x float> %v$q, <32 x float> %acc$q)""")
_ADD_STORE = Template("""
  %s.q$q = add i64 %j, $q
  %s.r$q = mul i64 %s.q$q, %ld
  %s.c$q = mul i64 %i, 32
  %s.i$q = add i64 %s.r$q, %s.c$q
  %s.p$q = getelementptr double, ptr %S, i64 %s.i$q
  %s$q = load <32 x double>, ptr %s.p$q, align 8
  %x$q = fpext <32 x float> %n$q to <32 x double>
  %t$q = fadd <32 x double> %s$q, %x$q
  store <32 x double> %t$q, ptr %s.p$q, align 8""")

_PAIR = Template("""
define void @pair(ptr noalias %W, ptr noalias %P, ptr noalias %C, ptr noalias %S, ptr noalias %O,
                  i64 %rows, i64 %ld) {
entry:
  br label %row
row:
  %i = phi i64 [0, %entry], [%i.next, %row.end]
  %c.p = getelementptr float, ptr %C, i64 %i
  %c.s = load float, ptr %c.p, align 4
  %c.z = insertelement <32 x float> poison, float %c.s, i64 0
  %c = shufflevector <32 x float> %c.z, <32 x float> poison, <32 x i32> zeroinitializer
  %s.p = getelementptr float, ptr %S, i64 %i
  %s.s = load float, ptr %s.p, align 4
  %s.z = insertelement <32 x float> poison, float %s.s, i64 0
  %s = shufflevector <32 x float> %s.z, <32 x float> poison, <32 x i32> zeroinitializer
  %begin = mul i64 %i, %ld
  br label %each
each:
  %k = phi i64 [0, %row], [%k.next, %each]
  %at = add i64 %begin, %k
  %w.p = getelementptr $el, ptr %W, i64 %at
  %w0 = load <32 x $el>, ptr %w.p, align 2
$widen0
  %p.p = getelementptr $el, ptr %P, i64 %at
  %w1 = load <32 x $el>, ptr %p.p, align 2
$widen1
  %m = fmul <32 x float> %s, %f1
  %y0 = call <32 x float> @llvm.fma.v32f32(<32 x float> %c, <32 x float> %f0, <32 x float> %m)
$narrow
  %o.p = getelementptr $el, ptr %O, i64 %at
  store <32 x $el> %h0, ptr %o.p, align 2
  %k.next = add i64 %k, 32
  %k.done = icmp uge i64 %k.next, %ld
  br i1 %k.done, label %row.end, label %each
row.end:
  %i.next = add i64 %i, 1
  %done = icmp eq i64 %i.next, %rows
  br i1 %done, label %end, label %row
end:
  ret void
}
""")

RANKS = 8
"""The number of ranks of a thin matrix must be a multiple of this."""

DECLARE_FMA = "declare <32 x float> @llvm.fma.v32f32(<32 x float>, <32 x float>, <32 x float>)\n"


def times_source(dtype: str) -> str:
    """@times(W, F, S, rows, tiles, ld, r): S += W·Fᵀ, with W [rows, ld] of the dtype (the first 32·tiles
    columns are summed), F [r, ld] in float32 and S [rows, r] in float64.
    """
    return _nested("times", dtype, _TIMES_STEP, _TIMES_FMA, lambda q: _TIMES_STORE.substitute(
        q=q, halves=_total(q)))  # fmt: skip


def add_source(dtype: str) -> str:
    """@add(W, F, S, tiles, rows, ld, r): S += Fᵀ·W, with W [rows, ld] of the dtype (32·tiles columns are
    summed), F [rows, r] in float32 and S [r, ld] in float64.
    """
    return _nested("add", dtype, _ADD_STEP, _ADD_FMA, lambda q: _ADD_STORE.substitute(q=q))


def pair_source(dtype: str) -> str:
    """@pair(W, P, C, S, O, rows, ld): O = C ∘ W + S ∘ P by rows, rounded to the dtype of W, P and O."""
    element, widen, narrow = CONVERT[dtype]
    return _PAIR.substitute(
        el=element,
        widen0=Template(widen).substitute(q=0),
        widen1=Template(widen).substitute(q=1),
        narrow=Template(narrow).substitute(q=0),
    )


def _nested(name: str, dtype: str, step: Template, fma: Template, store: Callable[[int], str]) -> str:
    element, widen, _ = CONVERT[dtype]
    group = range(RANKS if rows_at_once() > 2 else 2)  # their sums stay in registers
    return _NESTED.substitute(
        name=name,
        group=len(group),
        phis="\n".join(f"  %acc{q} = phi {_V} [zeroinitializer, %ranks], [%n{q}, %sum]" for q in group),
        step=step.substitute(el=element, widen=Template(widen).substitute(q=0))
        + "".join(fma.substitute(q=q) for q in group),
        stores="".join(store(q) for q in group),
    )


def _total(q: int) -> str:
    """Adds the 32 floats of %n$q, half to half, into the double %h$q.0."""
    lines, wide, count = [f"  %w{q}.32 = fpext {_V} %n{q} to {_D}"], f"%w{q}.32", 32
    while count > 1:
        half = count // 2
        kind, part = f"<{count} x double>", f"<{half} x double>"
        for side, start in (("l", 0), ("u", half)):
            mask = ", ".join(f"i32 {place}" for place in range(start, start + half))
            lines.append(
                f"  %{side}{q}.{half} = shufflevector {kind} {wide}, {kind} poison, <{half} x i32> <{mask}>"
            )
        lines.append(f"  %w{q}.{half} = fadd {part} %l{q}.{half}, %u{q}.{half}")
        wide, count = f"%w{q}.{half}", half
    lines.append(f"  %h{q}.0 = extractelement <1 x double> {wide}, i64 0")
    return "\n".join(lines)
