"""TIES' election of several updates, element by element, as one loop in LLVM IR.

Each step is the IEEE operation of `sign_election` in torch, in its order, so the results are equal.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Literal

import numpy as np

from adaptry.compute.tensors.llvm_ir import compile_once
from adaptry.core.compiled_module import CompiledModule
from adaptry.core.lazy_dataclass import dataclass

_N = 32
_V, _I, _B = f"<{_N} x float>", f"<{_N} x i32>", f"<{_N} x i1>"
_ONE = "<" + ", ".join(["float 1.0"] * _N) + ">"
_MINUS = "<" + ", ".join(["float -1.0"] * _N) + ">"
_ZERO = "zeroinitializer"


@dataclass(frozen=True, slots=True)
class ElectionKind:
    """`count` updates. `pruned`: which elements are kept: those of at least a magnitude, or those whose
    random number is below a limit, which are then divided if `is_divided`. `is_weighted`: whether a weight is
    not 1. `sign` and `divide`: as the parameters of these names.
    """

    count: int
    pruned: Literal["small", "random"]
    is_divided: bool
    is_weighted: bool
    is_scaled: bool
    sign: str
    divide: str


class CompiledElection:
    """An election compiled for this machine. Thread-safe."""

    def __init__(self, kind: ElectionKind) -> None:
        self._module = CompiledModule(_Source(kind).text())
        pointer = ctypes.c_void_p
        self._run = self._module.function("run", *[pointer] * 4, ctypes.c_int64)

    def run(
        self, updates: Sequence[int], words: Sequence[int], numbers: np.ndarray, target: int, count: int
    ) -> None:
        """Takes the addresses of each update's elements, of its random numbers (if any), and of the result;
        `count` is a multiple of 32. `numbers` (float32): each update's weight, each update's least magnitude
        (or, as the bits of an int32, its limit), the divisor of the kept elements, and the scale.
        """
        each, random = (np.array(addresses, np.uint64) for addresses in (updates, words))
        self._run(each.ctypes.data, random.ctypes.data, numbers.ctypes.data, target, count)


compiled_election = compile_once(CompiledElection)


class _Source:
    """The IR of one kind, written line by line; names of values are numbered."""

    def __init__(self, kind: ElectionKind) -> None:
        self._kind = kind
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._names = 0

    def text(self) -> str:
        kind = self._kind
        weights = [self._number(place) for place in range(kind.count)]
        updates = [self._pruned(place) for place in range(kind.count)]
        result = self._elected(updates, weights)
        if kind.is_scaled:
            result = self._do("fmul", result, self._number(2 * kind.count + 1))
        self._lines += [
            "  %o = getelementptr float, ptr %O, i64 %i",
            f"  store {_V} {result}, ptr %o, align 4",
        ]
        return "\n".join(
            (
                f"declare {_V} @llvm.fabs.v{_N}f32({_V})",
                "define void @run(ptr %U, ptr %R, ptr %N, ptr noalias %O, i64 %count) {",
                "entry:",
                *self._entry,
                "  br label %each",
                "each:",
                "  %i = phi i64 [0, %entry], [%i.next, %each]",
                *self._lines,
                f"  %i.next = add i64 %i, {_N}",
                "  %done = icmp uge i64 %i.next, %count",
                "  br i1 %done, label %end, label %each",
                "end:",
                "  ret void",
                "}",
            )
        )

    def _elected(self, updates: list[str], weights: list[str]) -> str:
        kind = self._kind
        if kind.sign != "unweighted" and kind.is_weighted:
            updates = [self._do("fmul", *pair) for pair in zip(updates, weights, strict=True)]
        votes = self._sum([self._sign(each) for each in updates] if kind.sign == "frequency" else updates)
        direction = self._select(self._compare("oge", votes, _ZERO), _ONE, _MINUS)
        turned = [self._do("fmul", each, direction) for each in updates]
        agreeing = [self._select(self._compare("ogt", each, _ZERO), each, _ZERO) for each in turned]
        agrees = [self._select(self._compare("ogt", each, _ZERO), _ONE, _ZERO) for each in turned]
        if kind.sign == "unweighted":
            agreeing = [self._do("fmul", *pair) for pair in zip(agreeing, weights, strict=True)]
        merged = self._do("fmul", self._sum(agreeing), direction)
        if kind.divide == "count":
            total = self._sum(agrees)
            return self._do("fdiv", merged, self._select(self._compare("ogt", total, _ONE), total, _ONE))
        if kind.divide == "weights":
            total = self._sum([self._do("fmul", *pair) for pair in zip(agrees, weights, strict=True)])
            return self._do("fdiv", merged, self._select(self._compare("oeq", total, _ZERO), _ONE, total))
        return merged

    def _pruned(self, place: int) -> str:
        kind = self._kind
        update = self._load("%U", place, _V)
        bound = self._number(kind.count + place)
        if kind.pruned == "small":
            self._lines.append(f"  {(size := self._name())} = call {_V} @llvm.fabs.v{_N}f32({_V} {update})")
            return self._select(self._compare("oge", size, bound), update, _ZERO)
        words, limit = self._load("%R", place, _I), self._name()
        self._lines.append(f"  {limit} = bitcast {_V} {bound} to {_I}")
        self._lines.append(f"  {(stays := self._name())} = icmp slt {_I} {words}, {limit}")
        kept = self._select(stays, update, _ZERO)
        return self._do("fdiv", kept, self._number(2 * kind.count)) if kind.is_divided else kept

    def _load(self, pointers: str, place: int, kind: str) -> str:
        """The elements of the update `place` at the current position."""
        at, base, here, found = (self._name() for _ in range(4))
        self._entry += [
            f"  {at} = getelementptr ptr, ptr {pointers}, i64 {place}",
            f"  {base} = load ptr, ptr {at}, align 8",
        ]
        self._lines += [
            f"  {here} = getelementptr float, ptr {base}, i64 %i",
            f"  {found} = load {kind}, ptr {here}, align 4",
        ]
        return found

    def _number(self, place: int) -> str:
        at, one, first, all_ = (self._name() for _ in range(4))
        self._entry += [
            f"  {at} = getelementptr float, ptr %N, i64 {place}",
            f"  {one} = load float, ptr {at}, align 4",
            f"  {first} = insertelement {_V} poison, float {one}, i64 0",
            f"  {all_} = shufflevector {_V} {first}, {_V} poison, {_I} {_ZERO}",
        ]
        return all_

    def _sum(self, numbers: list[str]) -> str:
        total = numbers[0]
        for each in numbers[1:]:
            total = self._do("fadd", total, each)
        return self._do("fadd", total, _ZERO)

    def _sign(self, number: str) -> str:
        negative = self._select(self._compare("olt", number, _ZERO), _MINUS, _ZERO)
        return self._select(self._compare("ogt", number, _ZERO), _ONE, negative)

    def _compare(self, how: str, first: str, second: str) -> str:
        self._lines.append(f"  {(name := self._name())} = fcmp {how} {_V} {first}, {second}")
        return name

    def _select(self, condition: str, first: str, second: str) -> str:
        self._lines.append(
            f"  {(name := self._name())} = select {_B} {condition}, {_V} {first}, {_V} {second}"
        )
        return name

    def _do(self, operation: str, first: str, second: str) -> str:
        self._lines.append(f"  {(name := self._name())} = {operation} {_V} {first}, {second}")
        return name

    def _name(self) -> str:
        self._names += 1
        return f"%v{self._names}"
