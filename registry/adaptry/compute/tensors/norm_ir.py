"""Scaling rows to given norms, in LLVM IR (the last steps of DoRA).

The norm of a row is summed as torch does on x86, with AVX2 and with AVX-512: eight running sums of separately
rounded squares, which are then added in order.
"""

from __future__ import annotations

from string import Template

from adaptry.compute.tensors.llvm_ir import CONVERT

LANES = 8
_NORM_ROWS = 4  # rows whose norms are summed at the same time

_NORMALISE = Template("""
declare float @llvm.sqrt.f32(float)
define internal void @norm_$rows(ptr noalias %Y, ptr noalias %V, ptr noalias %O, i64 %ld) alwaysinline {
entry:
  br label %sum
sum:
  %c = phi i64 [0, %entry], [%c.next, %sum]
$phis
$squares
  %c.next = add i64 %c, $lanes
  %c.done = icmp uge i64 %c.next, %ld
  br i1 %c.done, label %factors, label %sum
factors:
$factors
  br label %scale
scale:
  %e = phi i64 [0, %factors], [%e.next, %scale]
$scales
  %e.next = add i64 %e, 32
  %e.done = icmp uge i64 %e.next, %ld
  br i1 %e.done, label %end, label %scale
end:
  ret void
}
""")

_SQUARE = Template("""
  %o$q = mul i64 %ld, $q
  %i$q = add i64 %o$q, %c
  %p$q = getelementptr float, ptr %Y, i64 %i$q
  %x$q = load <$lanes x float>, ptr %p$q, align 4
  %x2.$q = fmul <$lanes x float> %x$q, %x$q
  %n$q = fadd <$lanes x float> %acc$q, %x2.$q""")

_SCALED = Template("""
  %ro$q = mul i64 %ld, $q
  %ri$q = add i64 %ro$q, %e
  %rp$q = getelementptr float, ptr %Y, i64 %ri$q
  %op$q = getelementptr $el, ptr %O, i64 %ri$q
  %r$q = load <32 x float>, ptr %rp$q, align 4
  %y$q = fmul <32 x float> %r$q, %fv$q
$narrow
  store <32 x $el> %h$q, ptr %op$q, align 2""")

_OVER_ROWS = Template("""
define void @$name($declared, i64 %rows, i64 %ld) {
entry:
  br label %many
many:
  %q = phi i64 [0, %entry], [%q.next, %many.do]
  %q.next = add i64 %q, $rows
  %fits = icmp ule i64 %q.next, %rows
  br i1 %fits, label %many.do, label %one
many.do:
$many
  br label %many
one:
  %z = phi i64 [%q, %many], [%z.next, %one.do]
  %more = icmp ult i64 %z, %rows
  br i1 %more, label %one.do, label %end
one.do:
$one
  %z.next = add i64 %z, 1
  br label %one
end:
  ret void
}
""")

_NORM_CALL = Template("""
  %x$i = mul i64 %$i, %ld
  %Y$i = getelementptr float, ptr %Y, i64 %x$i
  %O$i = getelementptr $el, ptr %O, i64 %x$i
  %V$i = getelementptr float, ptr %V, i64 %$i
  call void @norm_$rows(ptr %Y$i, ptr %V$i, ptr %O$i, i64 %ld)""")


def norm_source(dtype: str) -> str:
    """@normalise(Y, V, O, rows, ld): O = V ∘ Y / ‖Y‖ by rows; Y and V are float32, O has the dtype."""
    calls = {
        count: Template(_NORM_CALL.safe_substitute(el=CONVERT[dtype][0], rows=count))
        for count in (_NORM_ROWS, 1)
    }
    return (
        _norm(dtype, _NORM_ROWS)
        + _norm(dtype, 1).replace("declare float @llvm.sqrt.f32(float)", "")
        + _OVER_ROWS.substitute(
            name="normalise",
            declared="ptr %Y, ptr %V, ptr %O",
            rows=_NORM_ROWS,
            many=calls[_NORM_ROWS].substitute(i="q"),
            one=calls[1].substitute(i="z"),
        )
    )


def _norm(dtype: str, rows: int) -> str:
    element, _, narrow = CONVERT[dtype]
    scaled = Template(_SCALED.safe_substitute(el=element))
    vector = f"<{LANES} x float>"
    return _NORMALISE.substitute(
        rows=rows,
        lanes=LANES,
        phis="\n".join(
            f"  %acc{q} = phi {vector} [zeroinitializer, %entry], [%n{q}, %sum]" for q in range(rows)
        ),
        squares="".join(_SQUARE.substitute(q=q, lanes=LANES) for q in range(rows)),
        factors="".join(_factor(q) for q in range(rows)),
        scales="".join(scaled.substitute(q=q, narrow=Template(narrow).substitute(q=q)) for q in range(rows)),
    )


def _factor(q: int) -> str:
    """The running sums of row q added in order, and v / ‖row‖ as the vector %fv."""
    lines = [f"  %l{q}.0 = extractelement <{LANES} x float> %n{q}, i64 0"]
    total = f"%l{q}.0"
    for lane in range(1, LANES):
        lines.append(f"  %l{q}.{lane} = extractelement <{LANES} x float> %n{q}, i64 {lane}")
        lines.append(f"  %t{q}.{lane} = fadd float {total}, %l{q}.{lane}")
        total = f"%t{q}.{lane}"
    lines += [
        f"  %root{q} = call float @llvm.sqrt.f32(float {total})",
        f"  %vp{q} = getelementptr float, ptr %V, i64 {q}",
        f"  %vs{q} = load float, ptr %vp{q}, align 4",
        f"  %fs{q} = fdiv float %vs{q}, %root{q}",
        f"  %fi{q} = insertelement <32 x float> poison, float %fs{q}, i64 0",
        f"  %fv{q} = shufflevector <32 x float> %fi{q}, <32 x float> poison, <32 x i32> zeroinitializer",
    ]
    return "\n".join(lines) + "\n"
