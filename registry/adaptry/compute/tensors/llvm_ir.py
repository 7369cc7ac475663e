"""Conversions of dtypes in LLVM IR, and whether this machine has the instructions for them.

Compiling a program takes 40 ms. No fast-math flag is set, so LLVM fuses nothing. bf16 is rounded with
integers, since `vcvtneps2bf16` would flush subnormals.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Hashable
from functools import cache
from typing import TypeVar

from adaptry.core.compiled_module import has_cpu_feature

Program = TypeVar("Program")

PANEL = 32 << 10  # bytes of A that stay in L1 while rows are processed
WIDTH = 32  # columns of a packed tile


def splat(value: int) -> str:
    return "<" + ", ".join([f"i32 {value}"] * 32) + ">"


CONVERT = {  # dtype: element, widening of %w to %f, narrowing of %y to %h
    "BF16": (
        "i16",
        f"  %w.z$q = zext <32 x i16> %w$q to <32 x i32>\n  %w.s$q = shl <32 x i32> %w.z$q, {splat(16)}\n"
        "  %f$q = bitcast <32 x i32> %w.s$q to <32 x float>",
        f"  %u$q = bitcast <32 x float> %y$q to <32 x i32>\n  %l$q = lshr <32 x i32> %u$q, {splat(16)}\n"
        f"  %e$q = and <32 x i32> %l$q, {splat(1)}\n  %e2$q = add <32 x i32> %e$q, {splat(0x7FFF)}\n"
        f"  %g$q = add <32 x i32> %e2$q, %u$q\n  %g2$q = lshr <32 x i32> %g$q, {splat(16)}\n"
        f"  %nan$q = fcmp uno <32 x float> %y$q, %y$q\n"
        f"  %g3$q = select <32 x i1> %nan$q, <32 x i32> {splat(0x7FC0)}, <32 x i32> %g2$q\n"
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
    return has_cpu_feature("fma") and (dtype != "F16" or has_cpu_feature("f16c"))


def compile_once(compile: Callable[..., Program]) -> Callable[..., Program]:
    """Like `functools.cache`. If several threads need the same program, one compiles it."""
    programs, lock = cache(compile), threading.Lock()

    def program(*kind: Hashable) -> Program:
        with lock:
            return programs(*kind)

    return program


def rows_at_once() -> int:
    """The number of rows whose sums of 32 columns stay in this processor's registers."""
    return 6 if has_cpu_feature("avx512f") else 2  # 2 * 32 floats = 8 ymm registers
