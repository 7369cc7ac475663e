"""Changes of rows (`RowFormula`, among them a plain LoRA) as one fused loop in LLVM IR.

Per element of a product: fma over the ranks in order from zero. Then one IEEE operation for each step of the
formula, in the order of the method's function in torch, and one rounding to nearest even. So the results are
bit-equal to torch's; a test compares them.
"""

from __future__ import annotations

import ctypes
from string import Template

from adaptry.adapters.methods.row_formula import FormulaKind
from adaptry.compute.tensors.llvm_ir import CONVERT, rows_at_once
from adaptry.compute.tensors.norm_ir import norm_source
from adaptry.compute.tensors.product_ir import DECLARE_FMA, pair_source, times_source
from adaptry.compute.tensors.tally_ir import tally_source
from adaptry.compute.tensors.width_ir import narrow_source, widen_source
from adaptry.core.compiled_module import CompiledModule

_V = "<32 x float>"

PRODUCTS: dict[FormulaKind, int] = {
    "sum": 1, "summed": 2, "divided": 1, "hadamard": 2, "rounded": 1, "weighted": 1, "normalised": 1,
    "multiplied": 1, "affine": 2, "rotated": 1, "projected": 1,
}  # fmt: skip
"""The number of products of a formula; 0 for others."""

# The last steps of a formula for 32 elements of row $q: from %f$q (W) and %p0.$q, %p1.$q (products) to %y$q.
_STEPS: dict[FormulaKind, str] = {
    "sum": f"""
  %m$q = fmul {_V} %p0.$q, %sv
  %y$q = fadd {_V} %f$q, %m$q""",
    "summed": f"""
  %j$q = fadd {_V} %p0.$q, %p1.$q
  %m$q = fmul {_V} %j$q, %sv
  %y$q = fadd {_V} %f$q, %m$q""",
    "rounded": f"""
  %ya.$q = fmul {_V} %p0.$q, %sv
$round_a
  %y$q = fadd {_V} %f$q, %fa.$q""",
    "weighted": f"""
  %v.r$q = mul i64 %r, 32
  %v.p$q = getelementptr float, ptr %At, i64 %v.r$q
  %v$q = load {_V}, ptr %v.p$q, align 4
  %ya.$q = fmul {_V} %p0.$q, %v$q
$round_a
  %y$q = fadd {_V} %f$q, %fa.$q""",
    "affine": f"""
  %ya.$q = bitcast {_V} %p0.$q to {_V}
$round_a
  %yb.$q = fmul {_V} %f$q, %fa.$q
$round_b
  %yc.$q = bitcast {_V} %p1.$q to {_V}
$round_c
  %yd.$q = fadd {_V} %fb.$q, %fc.$q
$round_d
  %y$q = fadd {_V} %f$q, %fd.$q""",
    "rotated": f"""
  %y$q = bitcast {_V} %p0.$q to {_V}""",
    "divided": f"""
  %m$q = fmul {_V} %p0.$q, %sv
  %d$q = fdiv {_V} %m$q, %dv
  %y$q = fadd {_V} %f$q, %d$q""",
    "hadamard": f"""
  %j$q = fmul {_V} %p0.$q, %p1.$q
  %m$q = fmul {_V} %j$q, %sv
  %y$q = fadd {_V} %f$q, %m$q""",
    "normalised": f"""
  %m$q = fmul {_V} %p0.$q, %sv
  %y$q = fadd {_V} %f$q, %m$q""",
    "multiplied": f"""
  %ya.$q = bitcast {_V} %p0.$q to {_V}
$round_a
  %yb.$q = fmul {_V} %f$q, %fa.$q
$round_b
  %y$q = fadd {_V} %f$q, %fb.$q""",
    "row_scaled": f"""
  %v.s$q = load float, ptr %B$q, align 4
  %v.i$q = insertelement {_V} poison, float %v.s$q, i64 0
  %v$q = shufflevector {_V} %v.i$q, {_V} poison, <32 x i32> zeroinitializer
  %y$q = fmul {_V} %f$q, %v$q""",
    "column_scaled": f"""
  %v$q = load {_V}, ptr %At, align 4
  %y$q = fmul {_V} %f$q, %v$q""",
}

_STEPS["projected"] = _STEPS["sum"]

_TILE = Template("""
define internal void @tile_$rows(ptr noalias %W, ptr noalias %A, ptr noalias %B, ptr noalias %O,
                        i64 %ld, i64 %r, i64 %stride, i64 %tiles, float %s, float %d) alwaysinline {
entry:
  %s.one = insertelement <32 x float> poison, float %s, i64 0
  %sv = shufflevector <32 x float> %s.one, <32 x float> poison, <32 x i32> zeroinitializer
  %d.one = insertelement <32 x float> poison, float %d, i64 0
  %dv = shufflevector <32 x float> %d.one, <32 x float> poison, <32 x i32> zeroinitializer
  %step = mul i64 %$depth, 32
$row_pointers
  br label %tile
tile:
  %t = phi i64 [0, %entry], [%t.next, %store]
  %a.off = mul i64 %t, %step
  %At = getelementptr float, ptr %A, i64 %a.off
  %c = mul i64 %t, 32
  br label %$first
$products
store:
$stores
  %t.next = add i64 %t, 1
  %t.done = icmp eq i64 %t.next, %tiles
  br i1 %t.done, label %end, label %tile
end:
  ret void
}
""")

_PRODUCT = Template("""
rank$p:
  %k$p = phi i64 [0, %$before], [%k$p.next, %rank$p]
$phis
  %k.at$p = add i64 %k$p, $offset
  %k.off$p = mul i64 %k.at$p, 32
  %Ak$p = getelementptr float, ptr %At, i64 %k.off$p
  %a$p = load <32 x float>, ptr %Ak$p, align 4
$fmas
  %k$p.next = add i64 %k$p, 1
  %k$p.done = icmp eq i64 %k$p.next, %r
  br i1 %k$p.done, label %$after, label %rank$p
""")

_FMA = Template("""
  %b.p$p.$q = getelementptr float, ptr %B$q, i64 %k.at$p
  %b.s$p.$q = load float, ptr %b.p$p.$q, align 4
  %b.z$p.$q = insertelement <32 x float> poison, float %b.s$p.$q, i64 0
  %b.v$p.$q = shufflevector <32 x float> %b.z$p.$q, <32 x float> poison, <32 x i32> zeroinitializer
  %p$p.$q = call <32 x float> @llvm.fma.v32f32(<32 x float> %b.v$p.$q, <32 x float> %a$p,
                                                 <32 x float> %acc$p.$q)""")

_STORE = Template("""
  %o.r$q = mul i64 %ld, $q
  %o.i$q = add i64 %o.r$q, %c
  %w.p$q = getelementptr $el, ptr %W, i64 %o.i$q
  %o.p$q = getelementptr $out, ptr %O, i64 %o.i$q
  %w$q = load <32 x $el>, ptr %w.p$q, align 2
$widen
$steps
$narrow
  store <32 x $out> %h$q, ptr %o.p$q, align 2""")

_RUN = Template("""
declare <32 x float> @llvm.fma.v32f32(<32 x float>, <32 x float>, <32 x float>)
define void @run(ptr %W, ptr %A, ptr %B, ptr %O, i64 %rows, i64 %ld, i64 %r, i64 %stride,
                 i64 %per, float %s, float %d) {
entry:
  %tiles = udiv i64 %ld, 32
  %columns = mul i64 %per, 32
  %panel.size = mul i64 %$depth, %columns
  br label %panel
panel:
  %p = phi i64 [0, %entry], [%p.next, %panel.end]
  %p.tile = mul i64 %p, %per
  %rest = sub i64 %tiles, %p.tile
  %short = icmp ult i64 %rest, %per
  %n = select i1 %short, i64 %rest, i64 %per
  %a.off = mul i64 %p, %panel.size
  %Ap = getelementptr float, ptr %A, i64 %a.off
  %c = mul i64 %p, %columns
  br label %many
many:
  %q = phi i64 [0, %panel], [%q.next, %many.do]
  %q.next = add i64 %q, $rows
  %fits = icmp ule i64 %q.next, %rows
  br i1 %fits, label %many.do, label %one
many.do:
$call_many
  br label %many
one:
  %z = phi i64 [%q, %many], [%z.next, %one.do]
  %more = icmp ult i64 %z, %rows
  br i1 %more, label %one.do, label %panel.end
one.do:
$call_one
  %z.next = add i64 %z, 1
  br label %one
panel.end:
  %p.next = add i64 %p, 1
  %p.tile2 = mul i64 %p.next, %per
  %done = icmp uge i64 %p.tile2, %tiles
  br i1 %done, label %end, label %panel
end:
  ret void
}
""")

_CALL = Template("""
  %x$i = mul i64 %$i, %ld
  %y$i = add i64 %x$i, %c
  %W$i = getelementptr $el, ptr %W, i64 %y$i
  %O$i = getelementptr $out, ptr %O, i64 %y$i
  %b.r$i = mul i64 %$i, %stride
  %b$i = add i64 %b.r$i, $skipped
  %B$i = getelementptr float, ptr %B, i64 %b$i
  call void @tile_$rows(ptr %W$i, ptr %Ap, ptr %B$i, ptr %O$i, i64 %ld, i64 %r, i64 %stride, i64 %n,
                        float %s, float %d)""")

_DENSE = Template("""
define void @run(ptr noalias %W, ptr noalias %D, ptr noalias %O, i64 %count, float %s) {
entry:
  %s.one = insertelement <32 x float> poison, float %s, i64 0
  %sv = shufflevector <32 x float> %s.one, <32 x float> poison, <32 x i32> zeroinitializer
  br label %each
each:
  %i = phi i64 [0, %entry], [%i.next, %each]
  %w.p = getelementptr $el, ptr %W, i64 %i
  %d.p = getelementptr float, ptr %D, i64 %i
  %o.p = getelementptr $el, ptr %O, i64 %i
  %w0 = load <32 x $el>, ptr %w.p, align 2
  %d0 = load <32 x float>, ptr %d.p, align 4
$widen
  %m0 = fmul <32 x float> %d0, %sv
  %y0 = fadd <32 x float> %f0, %m0
$narrow
  store <32 x $el> %h0, ptr %o.p, align 2
  %i.next = add i64 %i, 32
  %done = icmp uge i64 %i.next, %count
  br i1 %done, label %end, label %each
end:
  ret void
}
""")


class CompiledFormula:
    """A formula compiled for this machine and one dtype; thread-safe. `run` writes float32 if the formula is
    normalised, and `normalise` computes the result from it. If the formula takes rows of W in float32
    (mapped, rotated), `widen` converts them, and `narrow` converts the result of a mapped one. `times`
    multiplies rows of W if the formula is projected (see `product_ir`). `tally` finds the largest magnitude
    of a result, and counts the elements that differ from W.
    """

    def __init__(self, kind: FormulaKind, dtype: str) -> None:
        pointer, size, single = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self._module = CompiledModule(_module_source(kind, dtype))
        self.tally = self._module.function("tally", pointer, pointer, size, pointer)
        if kind == "dense":
            self.run = self._module.function("run", pointer, pointer, pointer, size, single)
            return
        if kind == "mapped":
            self.widen = self._module.function("widen", pointer, pointer, size)
            self.narrow = self._module.function("narrow", pointer, pointer, size)
            return
        if kind == "paired":
            self.run = self._module.function("pair", *[pointer] * 5, size, size)
            return
        if kind == "rotated":
            self.widen = self._module.function("widen", pointer, pointer, size)
        elif kind == "projected":
            self.times = self._module.function("times", *[pointer] * 3, *[size] * 4)
        self.run = self._module.function("run", *[pointer] * 4, *[size] * 5, single, single)
        if kind == "normalised":
            self.normalise = self._module.function("normalise", pointer, pointer, pointer, size, size)


def _module_source(kind: FormulaKind, dtype: str) -> str:
    tally = tally_source(dtype)
    if kind == "dense":
        return tally + _dense_source(dtype)
    if kind == "mapped":
        return tally + widen_source(dtype) + narrow_source(dtype)
    if kind == "paired":
        return tally + DECLARE_FMA + pair_source(dtype)
    source = tally + _source(kind, dtype, _rows_at_once(kind))
    if kind == "normalised":
        source += norm_source(dtype)
    elif kind == "rotated":
        source += widen_source(dtype)
    elif kind == "projected":
        source += times_source(dtype)
    return source


def _rows_at_once(kind: FormulaKind) -> int:
    rows = rows_at_once()
    return max(1, rows // 2) if PRODUCTS.get(kind) == 2 and rows < 6 else rows


def _source(kind: FormulaKind, dtype: str, rows: int) -> str:
    element = CONVERT[dtype][0]
    out = "float" if kind == "normalised" else element
    skipped = "%c" if kind == "rotated" else "0"
    calls = {
        count: Template(_CALL.safe_substitute(el=element, out=out, rows=count, skipped=skipped))
        for count in {rows, 1}
    }
    return "".join(_tile(kind, dtype, count) for count in sorted({rows, 1})) + _RUN.substitute(
        rows=rows,
        depth=_depth(kind),
        call_many=calls[rows].substitute(i="q"),
        call_one=calls[1].substitute(i="z"),
    )


def _depth(kind: FormulaKind) -> str:
    """The number of rows of A in a tile, which is the number of columns of B (for a rotation, B is W
    itself).
    """
    return "r" if kind == "rotated" else "stride"


def _tile(kind: FormulaKind, dtype: str, rows: int) -> str:
    products = PRODUCTS.get(kind, 0)
    labels = ["tile", *(f"rank{p}" for p in range(products)), "store"]
    pointers = "".join(
        f"  %B.o{q} = mul i64 %stride, {q}\n  %B{q} = getelementptr float, ptr %B, i64 %B.o{q}\n"
        for q in range(rows)
    )
    return _TILE.substitute(
        rows=rows,
        depth=_depth(kind),
        row_pointers=pointers,
        first=labels[1],
        products="".join(_product(p, labels, rows) for p in range(products)),
        stores="".join(_store(kind, dtype, q) for q in range(rows)),
    )


def _product(p: int, labels: list[str], rows: int) -> str:
    before, after = labels[p], labels[p + 2]
    return _PRODUCT.substitute(
        p=p,
        before=before,
        after=after,
        offset="%r" if p else "0",
        phis="\n".join(
            f"  %acc{p}.{q} = phi {_V} [zeroinitializer, %{before}], [%p{p}.{q}, %rank{p}]"
            for q in range(rows)
        ),
        fmas="".join(_FMA.substitute(p=p, q=q) for q in range(rows)),
    )


def _store(kind: FormulaKind, dtype: str, q: int) -> str:
    element, widen, narrow = CONVERT[dtype]
    out = element
    if kind == "normalised":
        out, _, narrow = CONVERT["F32"]
    steps = Template(_STEPS[kind]).safe_substitute(q=q)
    rounds = {f"round_{name}": _rounded(dtype, f"{name}.{q}") for name in "abcd"}
    filled = {"q": q, "el": element, "out": out}
    return _STORE.substitute(
        **filled,
        widen=Template(widen).substitute(q=q),
        steps=Template(steps).substitute(rounds),
        narrow=Template(narrow).substitute(q=q),
    )


def _rounded(dtype: str, q: str) -> str:
    """%y -> %f, rounded to the dtype."""
    element, widen, narrow = CONVERT[dtype]
    same = f"  %w{q} = bitcast <32 x {element}> %h{q} to <32 x {element}>"
    return "\n".join((Template(narrow).substitute(q=q), same, Template(widen).substitute(q=q)))


def _dense_source(dtype: str) -> str:
    element, widen, narrow = CONVERT[dtype]
    return _DENSE.substitute(
        el=element, widen=Template(widen).substitute(q="0"), narrow=Template(narrow).substitute(q="0")
    )
