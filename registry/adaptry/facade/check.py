"""`check`: whether an adapter can work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptry.facade.arguments import BaseLike, SourceLike, parse_base, parse_source
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, lazily_opened
from adaptry.facade.warnings import warn
from adaptry.operations.adapter_check import CheckRequest, CheckResult, check_adapter

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime


@python_errors
def check(
    source: SourceLike,
    *,
    base: BaseLike | None = None,
    engines: str | Sequence[str] = (),
    weights: bool | None = None,
    other_base: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> CheckResult:
    """Checks an adapter: alone, against its base, or for an engine.

    For a version, only headers and configs are read, because its weights were inspected when it was pushed.

        found = adaptry.check("./out", base="./base", engines="vllm@0.33,max_lora_rank=64")
        if found.is_blocked:
            print(found)

    Args:
        source: A folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        base: The base to check against: a folder, a name or an id. None: the version's own, or the registered
            one that the adapter's config names; without either, the adapter is checked on its own.
        engines: Engines to serve it with, each with its version and limits.
        weights: True reads the weights, for NaN, infinite values and modules that change nothing; False does
            not. None: those of a folder are read; for a version, the findings of its push are used.
        other_base: Allows `base` to be a model other than the adapter's own.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Returns:
        Findings, each with a code, a severity, a reason and a remedy, and a verdict for each engine.

    Raises:
        NotFound: there is no such folder, version or base.
        InvalidConfig, InvalidWeights, Unsupported: the files cannot be read as an adapter.
        Invalid: an unknown engine or option.
        Unauthenticated, Unavailable.
    """
    named = parse_source(source)
    request = CheckRequest(
        None if base is None else parse_base(base), other_base, weights, _parse_engines(engines)
    )
    with lazily_opened(registry) as connected, shown_progress(progress) as bars:
        return check_adapter(connected, named, request, warn=warn, progress=bars)


def _parse_engines(engines: str | Sequence[str]) -> tuple[Runtime, ...]:
    from adaptry.checks.runtimes import parse_runtime

    return tuple(map(parse_runtime, [engines] if isinstance(engines, str) else engines))
