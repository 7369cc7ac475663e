"""Every adapter with every engine: our verdict, the engine's result, and whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.core.errors import AdaptryError

from ..cases import Base
from .engines import Engine, Reply
from .generated import Specimen
from .reference import NEAR, PeftAnswer, ask_peft, right_answer


@dataclass(frozen=True)
class Judged:
    """One adapter with one engine. `said` and `seen` are the outcomes of our verdict and of the engine; `why`
    describes both in words.
    """

    specimen: Specimen
    said: str
    seen: str
    why: str

    @property
    def kind(self) -> str:
        """`miss`: we say as trained, and it is not. `false alarm`: it is, and we say otherwise. `other`: we
        say refused but it serves something else, or the reverse."""
        if self.said == self.seen:
            return "agreed"
        if self.said == "as_trained":
            return "miss"
        return "false alarm" if self.seen == "as_trained" else "other"

    def __str__(self) -> str:
        return f"{self.kind}: {self.specimen.name} ({self.specimen.done}): {self.why}"


@dataclass(frozen=True)
class Known:
    """Adapters with PEFT's answers, by which every engine is judged."""

    base: Base
    specimens: Sequence[Specimen]
    own: Sequence[PeftAnswer]
    right: Sequence[torch.Tensor | None]


def known(base: Base, specimens: Sequence[Specimen]) -> Known:
    own = [ask_peft(base, one.folder) for one in specimens]
    pairs = zip(specimens, own, strict=True)
    return Known(base, specimens, own, [right_answer(base, one, answer) for one, answer in pairs])


def judged_peft(known: Known) -> list[Judged]:
    """PEFT's own verdict: by whether it takes the whole file."""
    record = known.base.setting.record
    found = []
    for one, own in zip(known.specimens, known.own, strict=True):
        said, reasons = _verdict(one.folder, "peft", record)
        seen = "refused" if own.error else "as_trained" if own.is_whole else "not_as_trained"
        lost = f"loses {', '.join(own.lost[:2])}; random: {own.is_random}"
        found.append(Judged(one, said, seen, f"we say {said} [{reasons}]; PEFT: {own.error[:300] or lost}"))
    return found


def judged(engine: Engine, known: Known, replies: Sequence[Reply]) -> list[Judged]:
    record = known.base.setting.record
    found = []
    for one, right, reply in zip(known.specimens, known.right, replies, strict=True):
        said, reasons = _verdict(one.folder, engine.runtime, record)
        seen, how = _seen(reply, right)
        found.append(Judged(one, said, seen, f"we say {said} [{reasons}]; {engine.name} {seen}: {how}"))
    return found


def counts(results: Iterable[Judged]) -> dict[str, int]:
    """The counts by kind, and the engine's results."""
    results = list(results)
    kinds, seen = Counter(one.kind for one in results), Counter(one.seen for one in results)
    return {
        "adapters": len(results),
        "as_trained": seen["as_trained"],
        "changed": seen["not_as_trained"],
        "refused": seen["refused"],
        "misses": kinds["miss"],
        "false_alarms": kinds["false alarm"],
        "other": kinds["other"],
    }


def _verdict(folder: Path, runtime: str, record: BaseRecord | None) -> tuple[str, str]:
    try:
        verdict = check_runtime(open_dir(folder), parse_runtime(runtime), record)
    except AdaptryError as error:  # a file or config that is refused before any rule is tested
        return "refused", f"{type(error).__name__}: {error}"
    worst = [f"{one.code}: {one.reason}" for one in verdict.findings if one.severity != "notes"]
    return verdict.outcome, "; ".join(worst)


def _seen(reply: Reply, right: torch.Tensor | None) -> tuple[str, str]:
    if reply.odds is None:
        return "refused", f"at {reply.when}: {reply.refused[:250]} … {reply.refused[-150:]}"
    if right is None:
        return "not_as_trained", "it loads what is the whole of no adapter"
    apart = float((reply.odds - right).abs().max())
    if torch.allclose(reply.odds, right, atol=NEAR, equal_nan=True):
        return "as_trained", f"apart {apart:.1g}"
    return "not_as_trained", f"apart {apart:.3g}"
