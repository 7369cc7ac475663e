"""Determines from an adapter's path in a folder tree which training run it belongs to, and at which step it
was saved.

`tone/checkpoint-500` is step 500 of the run `tone`; `tone/final` and `tone` itself are its end. A commit in a
Hugging Face cache belongs to its repository. Pure functions of names.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from adaptry.core.errors import InvalidRef
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.refs import AdapterName

_STEP = lazy_pattern(r"(?:checkpoint|ckpt|global[-_]?step|step|epoch|iter)[-_]?(\d{1,15})", re.IGNORECASE)
_FILE_STEP = lazy_pattern(r"(.+)-(?:step)?(\d{6,9})")
"""kohya's names: `tone-000004` is epoch 4, `tone-step00000500` is step 500."""
_END = lazy_pattern(
    r"(?:checkpoint[-_])?(?:final|last)(?:[-_](?:adapter|checkpoint|model|lora))?"
    r"|adapter|adapter[-_]model|lora",
    re.IGNORECASE,
)
"""Names of folders in which programs save the end of a run."""
_CACHED = "models--"
_MAX_NAME = 96
_NOT_IN_NAMES = lazy_pattern(r"[^A-Za-z0-9._-]+")
_REPEATED = lazy_pattern(r"-{2,}|\.{2,}")


@dataclass(frozen=True, slots=True)
class RunPosition:
    """The position of an adapter in a training run: `run` is the run's path, empty if it is the searched
    folder itself. `steps` are the numbers in the names, outermost first; without numbers, the adapter is the
    end of the run.
    """

    run: tuple[str, ...]
    steps: tuple[int, ...] = ()

    @property
    def step(self) -> int | None:
        return self.steps[-1] if self.steps else None

    @property
    def order(self) -> tuple[bool, tuple[int, ...]]:
        """A sort key: steps in order, then the end of the run."""
        return not self.steps, self.steps


def locate_in_run(parts: Sequence[str], file: str | None = None) -> RunPosition:
    """The run and steps of the adapter in the folder with these path `parts`, relative to the searched one,
    or in one `file` there.
    """
    run: list[str] = []
    steps: list[int] = []
    for position, part in enumerate(parts):
        if match := _STEP.fullmatch(part):
            steps.append(int(match[1]))
        elif part.startswith(_CACHED):
            run += [word for word in part.removeprefix(_CACHED).split("--") if word]
        elif _is_commit_folder(parts, position):
            continue
        else:
            run.append(part)
    if file is not None:
        stem = file.rpartition(".")[0]
        numbered = _FILE_STEP.fullmatch(stem)
        run.append(numbered[1] if numbered else stem)
        steps += [int(numbered[2])] if numbered else []
    elif run and _END.fullmatch(run[-1]) and run[-1] == parts[-1]:
        run.pop()
    return RunPosition(tuple(run), tuple(steps))


def _is_commit_folder(parts: Sequence[str], position: int) -> bool:
    """Whether this part is `snapshots`, or the commit in it, of a repository in a Hugging Face cache."""
    return any(
        parts[place].startswith(_CACHED) and parts[place + 1 : place + 2] == ["snapshots"]
        for place in (position - 1, position - 2)
        if place >= 0
    )


def name_adapters(
    runs: Iterable[tuple[str, ...]], namespace: str, root: str
) -> Mapping[tuple[str, ...], AdapterName]:
    """The adapter's name for each run: its path, joined with hyphens and made valid; the run in the searched
    folder itself is named after that folder, `root`. A name does not depend on the other runs, unless two
    names become equal when they are made valid: then both end with the beginning of a digest of their path.

    Raises `InvalidRef` if the namespace is not valid.
    """
    wanted = {run: valid_name("-".join(run) or root) for run in dict.fromkeys(runs)}
    users: dict[str, int] = {}
    for name in wanted.values():
        users[name.lower()] = users.get(name.lower(), 0) + 1
    return {
        run: AdapterName.parse(
            f"{namespace}/{name if users[name.lower()] == 1 else _with_digest(name, '/'.join(run) or '.')}"
        )
        for run, name in wanted.items()
    }


def valid_name(text: str) -> str:
    """`text` as a valid name of an adapter. If it is too long or has no valid character, the name ends with
    the beginning of a digest of the whole text.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()  # ä becomes a
    kept = _REPEATED.sub(lambda found: found[0][0], _NOT_IN_NAMES.sub("-", plain)).strip("-.")
    kept = _REPEATED.sub(lambda found: found[0][0], kept)
    if not kept:
        return _with_digest("adapter", text)
    kept = kept if kept[0].isalnum() else f"adapter{kept}"
    if len(kept) > _MAX_NAME:
        kept = _with_digest(kept, text)
    try:
        return AdapterName.parse(f"a/{kept}").name
    except InvalidRef:  # a device on Windows, such as nul.txt, or a reserved ending
        return f"{kept.replace('.', '-')[: _MAX_NAME - 8].rstrip('-')}-adapter"


def _with_digest(name: str, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9].rstrip('-.')}-{digest}"
