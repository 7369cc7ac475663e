"""Sums of products whose columns are weighted, as a loop in LLVM IR that keeps all sums in registers."""

from __future__ import annotations

from string import Template

from adaptry.compute.tensors.product_ir import DECLARE_FMA

_V = "<32 x float>"

_SOURCE = Template("""
define void @weighted(ptr noalias %A, ptr noalias %V, ptr noalias %B, ptr noalias %O,
                      i64 %rows, i64 %tiles, i64 %r, i64 %count) {
entry:
  %depth = mul i64 %r, %count
  %ld = mul i64 %tiles, 32
  %a.size = mul i64 %r, 32
  %v.size = mul i64 %count, 32
  br label %row
row:
  %i = phi i64 [0, %entry], [%i.next, %row.end]
  %b.first = mul i64 %i, %depth
  %o.first = mul i64 %i, %ld
  br label %tile
tile:
  %t = phi i64 [0, %row], [%t.next, %store]
  %a.off = mul i64 %t, %a.size
  %At = getelementptr float, ptr %A, i64 %a.off
  %v.off = mul i64 %t, %v.size
  %Vt = getelementptr float, ptr %V, i64 %v.off
  br label %term
term:
  %n = phi i64 [0, %tile], [%n.next, %term.end]
$totals
  %b.term = mul i64 %n, %r
  %b.at = add i64 %b.first, %b.term
  br label %rank
rank:
  %k = phi i64 [0, %term], [%k.next, %rank]
$sums
  %a.i = mul i64 %k, 32
  %a.p = getelementptr float, ptr %At, i64 %a.i
  %a = load <32 x float>, ptr %a.p, align 4
  %b.k = add i64 %b.at, %k
$products
  %k.next = add i64 %k, 1
  %k.done = icmp eq i64 %k.next, %r
  br i1 %k.done, label %term.end, label %rank
term.end:
  %v.i = mul i64 %n, 32
  %v.p = getelementptr float, ptr %Vt, i64 %v.i
  %v = load <32 x float>, ptr %v.p, align 4
$weights
  %n.next = add i64 %n, 1
  %n.done = icmp eq i64 %n.next, %count
  br i1 %n.done, label %store, label %term
store:
  %o.tile = mul i64 %t, 32
  %o.at = add i64 %o.first, %o.tile
$stores
  %t.next = add i64 %t, 1
  %t.done = icmp eq i64 %t.next, %tiles
  br i1 %t.done, label %row.end, label %tile
row.end:
  %i.next = add i64 %i, $group
  %done = icmp uge i64 %i.next, %rows
  br i1 %done, label %end, label %row
end:
  ret void
}
""")

_PRODUCT = Template("""
  %b.o$q = mul i64 %depth, $q
  %b.i$q = add i64 %b.k, %b.o$q
  %b.p$q = getelementptr float, ptr %B, i64 %b.i$q
  %b.s$q = load float, ptr %b.p$q, align 4
  %b.z$q = insertelement <32 x float> poison, float %b.s$q, i64 0
  %b$q = shufflevector <32 x float> %b.z$q, <32 x float> poison, <32 x i32> zeroinitializer
  %p.next$q = call <32 x float> @llvm.fma.v32f32(<32 x float> %b$q, <32 x float> %a, <32 x float> %p$q)""")

_STORE = Template("""
  %o.r$q = mul i64 %ld, $q
  %o.i$q = add i64 %o.at, %o.r$q
  %o.p$q = getelementptr float, ptr %O, i64 %o.i$q
  store <32 x float> %s.next$q, ptr %o.p$q, align 4""")


def weighted_source(rows: int) -> str:
    """@weighted(A, V, B, O, rows, tiles, r, count): O = Σₙ (Bₙ·A) ∘ vₙ, all float32, with A in tiles of 32
    columns [tiles, r, 32], V [tiles, count, 32], B [rows, count · r] and O [rows, 32 · tiles]. All numbers
    are positive. The function sums `rows` rows at once; the loop's number of rows must be a multiple of it.
    """
    group = range(rows)
    return DECLARE_FMA + _SOURCE.substitute(
        group=rows,
        totals="\n".join(
            f"  %s{q} = phi {_V} [zeroinitializer, %tile], [%s.next{q}, %term.end]" for q in group
        ),
        sums="\n".join(f"  %p{q} = phi {_V} [zeroinitializer, %term], [%p.next{q}, %rank]" for q in group),
        products="".join(_PRODUCT.substitute(q=q) for q in group),
        weights="\n".join(
            f"  %s.next{q} = call {_V} @llvm.fma.v32f32({_V} %p.next{q}, {_V} %v, {_V} %s{q})" for q in group
        ),
        stores="".join(_STORE.substitute(q=q) for q in group),
    )
