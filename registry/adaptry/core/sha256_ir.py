"""SHA-256 of two streams at once in one thread, in LLVM IR for x86 processors with SHA instructions.

`sha256rnds2` takes four cycles and needs the result of the previous one, but the processor can start one
every two cycles. So a single stream leaves half of it idle; interleaved streams do not. The instructions
follow "Intel SHA Extensions" (2013), which keeps a state as two vectors: the words F, E, B, A and H, G, D, C.
"""

from __future__ import annotations

from collections.abc import Iterator

LANES = 2
"""The maximum number of interleaved streams. More do not fit into the sixteen registers that the instructions
reach: on an Intel Xeon, one stream in the cache ran at 1.8 GB/s, two at 2.45, three at 2.3 and four at 2.2.
"""

STATE_ORDER = (5, 4, 1, 0, 7, 6, 3, 2)
"""The place in FIPS 180-4 of each of the eight words of a state in memory."""

_V = "<4 x i32>"
_ROUND_CONSTANTS = """
428a2f98 71374491 b5c0fbcf e9b5dba5 3956c25b 59f111f1 923f82a4 ab1c5ed5
d807aa98 12835b01 243185be 550c7dc3 72be5d74 80deb1fe 9bdc06a7 c19bf174
e49b69c1 efbe4786 0fc19dc6 240ca1cc 2de92c6f 4a7484aa 5cb0a9dc 76f988da
983e5152 a831c66d b00327c8 bf597fc7 c6e00bf3 d5a79147 06ca6351 14292967
27b70a85 2e1b2138 4d2c6dfc 53380d13 650a7354 766a0abb 81c2c92e 92722c85
a2bfe8a1 a81a664b c24b8b70 c76c51a3 d192e819 d6990624 f40e3585 106aa070
19a4c116 1e376c08 2748774c 34b0bcb5 391c0cb3 4ed8aa4a 5b9cca4f 682e6ff3
748f82ee 78a5636f 84c87814 8cc70208 90befffa a4506ceb bef9a3f7 c67178f2
"""  # FIPS 180-4, section 4.2.2


def module_source() -> str:
    """The functions `@sha256_1` and `@sha256_2`. The one for n streams takes n pairs (state, data) of
    pointers and the number of blocks of 64 bytes that it adds to each state.
    """
    words = ", ".join(f"i32 {int(word, 16)}" for word in _ROUND_CONSTANTS.split())
    head = [
        f"@K = private constant [64 x i32] [{words}], align 16",
        f"declare {_V} @llvm.x86.sha256rnds2({_V}, {_V}, {_V})",
        f"declare {_V} @llvm.x86.sha256msg1({_V}, {_V})",
        f"declare {_V} @llvm.x86.sha256msg2({_V}, {_V})",
        f"declare {_V} @llvm.bswap.v4i32({_V})",
    ]
    return "\n".join([*head, *(line for lanes in range(1, LANES + 1) for line in _function(lanes))])


def _function(count: int) -> Iterator[str]:
    lanes = range(count)
    yield f"define void @sha256_{count}("
    yield "".join(f"ptr %s{n}, ptr %p{n}, " for n in lanes) + "i64 %blocks) {"
    yield "entry:"
    for n in lanes:
        yield f"%s{n}.b = getelementptr i8, ptr %s{n}, i64 16"
        yield f"%a{n}.first = load {_V}, ptr %s{n}, align 4"
        yield f"%b{n}.first = load {_V}, ptr %s{n}.b, align 4"
    yield "br label %block"
    yield "block:"
    yield "%k = phi i64 [0, %entry], [%k.next, %last]"
    for n in lanes:
        for half in "ab":
            yield f"%{half}{n} = phi {_V} [%{half}{n}.first, %entry], [%{half}{n}.sum, %last]"
    yield "%at = shl i64 %k, 6"
    for n in lanes:
        yield f"%d{n} = getelementptr i8, ptr %p{n}, i64 %at"
        for q in range(4):
            yield f"%d{n}.{q} = getelementptr i8, ptr %d{n}, i64 {16 * q}"
            yield f"%r{n}.{q} = load {_V}, ptr %d{n}.{q}, align 1"
            yield f"%w{n}.{q}.read = call {_V} @llvm.bswap.v4i32({_V} %r{n}.{q})"
    yield "br label %group"
    yield "group:"
    yield "%g = phi i64 [0, %block], [%g.next, %group]"
    for n in lanes:
        for half in "ab":
            yield f"%{half}{n}.g = phi {_V} [%{half}{n}, %block], [%{half}{n}.g3, %group]"
        for q in range(4):
            yield f"%w{n}.{q} = phi {_V} [%w{n}.{q}.read, %block], [%w{n}.{q}.next, %group]"
    for q in range(4):
        yield f"%k.i{q} = add i64 %g, {4 * q}"
        yield f"%k.p{q} = getelementptr i32, ptr @K, i64 %k.i{q}"
        yield f"%k.v{q} = load {_V}, ptr %k.p{q}, align 16"
        for n in lanes:
            yield from _rounds(n, q, "g", f"%k.v{q}")
            yield from _schedule(n, q)
    yield "%g.next = add i64 %g, 16"
    yield "%more = icmp ult i64 %g.next, 48"
    yield "br i1 %more, label %group, label %last"
    yield from _last_rounds(lanes)
    yield "%k.next = add i64 %k, 1"
    yield "%done = icmp eq i64 %k.next, %blocks"
    yield "br i1 %done, label %end, label %block"
    yield "end:"
    for n in lanes:
        yield f"store {_V} %a{n}.sum, ptr %s{n}, align 4"
        yield f"store {_V} %b{n}.sum, ptr %s{n}.b, align 4"
    yield "ret void"
    yield "}"


def _last_rounds(lanes: range) -> Iterator[str]:
    """The last 16 rounds, which need no further words, and the sums of a block."""
    yield "last:"
    for n in lanes:
        for half in "ab":
            yield f"%{half}{n}.l = phi {_V} [%{half}{n}.g3, %group]"
    for q in range(4):
        yield f"%l.p{q} = getelementptr i32, ptr @K, i64 {48 + 4 * q}"
        yield f"%l.v{q} = load {_V}, ptr %l.p{q}, align 16"
        for n in lanes:
            yield from _rounds(n, q, "l", f"%l.v{q}", word=f"%w{n}.{q}.next")
    for n in lanes:
        for half in "ab":
            yield f"%{half}{n}.sum = add {_V} %{half}{n}, %{half}{n}.l3"


def _rounds(n: int, q: int, part: str, constants: str, word: str = "") -> Iterator[str]:
    """Four rounds of lane n, with the words of its vector q."""
    before, after = (f"{part}{q - 1}" if q else part), f"{part}{q}"
    m, a, b = f"%m{n}.{after}", f"%a{n}", f"%b{n}"
    yield f"{m} = add {_V} {word or f'%w{n}.{q}'}, {constants}"
    rounds = f"call {_V} @llvm.x86.sha256rnds2"
    yield f"{b}.{after} = {rounds}({_V} {b}.{before}, {_V} {a}.{before}, {_V} {m})"
    yield f"{m}.high = shufflevector {_V} {m}, {_V} poison, {_V} <i32 2, i32 3, i32 poison, i32 poison>"
    yield f"{a}.{after} = {rounds}({_V} {a}.{before}, {_V} {b}.{after}, {_V} {m}.high)"


def _schedule(n: int, q: int) -> Iterator[str]:
    """Replaces vector q of lane n by the words of sixteen rounds later, after the vectors before q."""

    def vector(place: int) -> str:
        return f"%w{n}.{place % 4}" + (".next" if place >= 4 else "")

    x = f"%x{n}.{q}"
    yield f"{x}.1 = call {_V} @llvm.x86.sha256msg1({_V} {vector(q)}, {_V} {vector(q + 1)})"
    order = "<i32 1, i32 2, i32 3, i32 4>"
    yield f"{x}.2 = shufflevector {_V} {vector(q + 2)}, {_V} {vector(q + 3)}, {_V} {order}"
    yield f"{x}.3 = add {_V} {x}.1, {x}.2"
    yield f"{vector(q + 4)} = call {_V} @llvm.x86.sha256msg2({_V} {x}.3, {_V} {vector(q + 3)})"
