"""The kernel's arithmetic as one fused loop in LLVM IR, compiled for this machine in 40 ms.

It needs neither torch nor a compiler, only llvmlite, which includes LLVM. Per element: fma over the ranks in
order from zero, times s, plus W, one rounding to nearest even. No fast-math flag is set, so LLVM fuses
nothing else. bf16 is rounded with integers, since `vcvtneps2bf16` would flush subnormals. The result is
bit-equal to the torch kernel's; a test compares them.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from string import Template

import llvmlite.binding as llvm

PANEL = 256  # columns of A kept in L1 while rows are processed (16 KiB at rank 16)
WIDTH = 32  # columns of a packed tile

_TILE = Template("""
define internal void @tile_$rows(ptr noalias %W, ptr noalias %A, ptr noalias %B, ptr noalias %O,
                        i64 %ld, i64 %r, i64 %tiles, float %s) alwaysinline {
entry:
  %s1 = insertelement <32 x float> poison, float %s, i64 0
  %sv = shufflevector <32 x float> %s1, <32 x float> poison, <32 x i32> zeroinitializer
  %step = mul i64 %r, 32
  br label %tile
tile:
  %t = phi i64 [0, %entry], [%t.next, %store]
  %a.off = mul i64 %t, %step
  %At = getelementptr float, ptr %A, i64 %a.off
  %c = mul i64 %t, 32
  br label %rank
rank:
  %k = phi i64 [0, %tile], [%k.next, %rank]
$phis
  %k.off = mul i64 %k, 32
  %Ak = getelementptr float, ptr %At, i64 %k.off
  %a = load <32 x float>, ptr %Ak, align 4
$fmas
  %k.next = add i64 %k, 1
  %k.done = icmp eq i64 %k.next, %r
  br i1 %k.done, label %store, label %rank
store:
$stores
  %t.next = add i64 %t, 1
  %t.done = icmp eq i64 %t.next, %tiles
  br i1 %t.done, label %end, label %tile
end:
  ret void
}
""")

_FMA = Template("""
  %b.o$q = mul i64 %r, $q
  %b.i$q = add i64 %b.o$q, %k
  %b.p$q = getelementptr float, ptr %B, i64 %b.i$q
  %b.s$q = load float, ptr %b.p$q, align 4
  %b.z$q = insertelement <32 x float> poison, float %b.s$q, i64 0
  %b.v$q = shufflevector <32 x float> %b.z$q, <32 x float> poison, <32 x i32> zeroinitializer
  %n$q = call <32 x float> @llvm.fma.v32f32(<32 x float> %b.v$q, <32 x float> %a, <32 x float> %acc$q)""")

_STORE = Template("""
  %o.r$q = mul i64 %ld, $q
  %o.i$q = add i64 %o.r$q, %c
  %w.p$q = getelementptr $el, ptr %W, i64 %o.i$q
  %o.p$q = getelementptr $el, ptr %O, i64 %o.i$q
  %w$q = load <32 x $el>, ptr %w.p$q, align 2
$widen
  %m$q = fmul <32 x float> %n$q, %sv
  %y$q = fadd <32 x float> %f$q, %m$q
$narrow
  store <32 x $el> %h$q, ptr %o.p$q, align 2""")


def _all(value: int) -> str:
    return "<" + ", ".join([f"i32 {value}"] * 32) + ">"


_CONVERT = {  # dtype: element, widening of %w to %f, narrowing of %y to %h
    "BF16": (
        "i16",
        f"  %w.z$q = zext <32 x i16> %w$q to <32 x i32>\n  %w.s$q = shl <32 x i32> %w.z$q, {_all(16)}\n"
        "  %f$q = bitcast <32 x i32> %w.s$q to <32 x float>",
        f"  %u$q = bitcast <32 x float> %y$q to <32 x i32>\n  %l$q = lshr <32 x i32> %u$q, {_all(16)}\n"
        f"  %e$q = and <32 x i32> %l$q, {_all(1)}\n  %e2$q = add <32 x i32> %e$q, {_all(0x7FFF)}\n"
        f"  %g$q = add <32 x i32> %e2$q, %u$q\n  %g2$q = lshr <32 x i32> %g$q, {_all(16)}\n"
        f"  %nan$q = fcmp uno <32 x float> %y$q, %y$q\n"
        f"  %g3$q = select <32 x i1> %nan$q, <32 x i32> {_all(0x7FC0)}, <32 x i32> %g2$q\n"
        "  %h$q = trunc <32 x i32> %g3$q to <32 x i16>",
    ),
    "F16": (
        "half",
        "  %f$q = fpext <32 x half> %w$q to <32 x float>",
        "  %h$q = fptrunc <32 x float> %y$q to <32 x half>",
    ),
    "F32": (
        "float",
        "  %f$q = fadd <32 x float> %w$q, " + "<" + ", ".join(["float -0.0"] * 32) + ">",
        "  %h$q = fadd <32 x float> %y$q, " + "<" + ", ".join(["float -0.0"] * 32) + ">",
    ),  # x + -0.0 is x
}

_RUN = Template("""
declare <32 x float> @llvm.fma.v32f32(<32 x float>, <32 x float>, <32 x float>)
define void @run(ptr %W, ptr %A, ptr %B, ptr %O, i64 %rows, i64 %ld, i64 %r, float %s) {
entry:
  %tiles = udiv i64 %ld, 32
  %panel.size = mul i64 %r, $panel
  br label %panel
panel:
  %p = phi i64 [0, %entry], [%p.next, %panel.end]
  %p.tile = mul i64 %p, $per_panel
  %rest = sub i64 %tiles, %p.tile
  %short = icmp ult i64 %rest, $per_panel
  %n = select i1 %short, i64 %rest, i64 $per_panel
  %a.off = mul i64 %p, %panel.size
  %Ap = getelementptr float, ptr %A, i64 %a.off
  %c = mul i64 %p, $panel
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
  %p.tile2 = mul i64 %p.next, $per_panel
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
  %O$i = getelementptr $el, ptr %O, i64 %y$i
  %b$i = mul i64 %$i, %r
  %B$i = getelementptr float, ptr %B, i64 %b$i
  call void @tile_$rows(ptr %W$i, ptr %Ap, ptr %B$i, ptr %O$i, i64 %ld, i64 %r, i64 %n, float %s)""")


def _source(dtype: str, rows: int) -> str:
    """LLVM IR of @run for W of a dtype, `rows` rows at a time (this many accumulators stay in registers)."""
    element, widen, narrow = _CONVERT[dtype]
    store = Template(_STORE.safe_substitute(el=element, widen=widen, narrow=narrow))

    def tile(count: int) -> str:
        each = range(count)
        return _TILE.substitute(
            rows=count,
            phis="\n".join(
                f"  %acc{q} = phi <32 x float> [zeroinitializer, %tile], [%n{q}, %rank]" for q in each
            ),
            fmas="".join(_FMA.substitute(q=q) for q in each),
            stores="".join(store.substitute(q=q) for q in each),
        )

    return (
        tile(rows)
        + tile(1)
        + _RUN.substitute(
            panel=PANEL,
            per_panel=PANEL // WIDTH,
            rows=rows,
            call_many=_CALL.substitute(i="q", el=element, rows=rows),
            call_one=_CALL.substitute(i="z", el=element, rows=1),
        )
    )


@cache
def is_supported(dtype: str) -> bool:
    """Whether this processor has instructions for all steps of the loop.

    If not (an x86 without fma or f16c), LLVM would call library functions that are not linked.
    """
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return True
    if machine not in ("x86_64", "amd64"):
        return False
    features = llvm.get_host_cpu_features()
    return bool(features.get("fma")) and (dtype != "F16" or bool(features.get("f16c")))


class CompiledLoop:
    """`@run` compiled for this machine and one dtype ("BF16", "F16" or "F32"); safe from several threads."""

    def __init__(self, dtype: str) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        rows = 6 if features.get("avx512f") else 2  # 2 * 32 floats = 8 ymm registers
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
        )
        module = llvm.parse_assembly(_source(dtype, rows))
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, machine)  # owns the code
        self._engine.finalize_object()
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        signature = ctypes.CFUNCTYPE(
            None, pointer, pointer, pointer, pointer, size, size, size, ctypes.c_float
        )
        self.run = signature(self._engine.get_function_address("run"))
        self.item = 4 if dtype == "F32" else 2
