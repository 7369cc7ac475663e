"""`compare`: the differences between two adapters."""

from __future__ import annotations

from adaptry.facade.arguments import SourceLike, parse_source
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, lazily_opened
from adaptry.facade.warnings import warn
from adaptry.operations.comparison import Comparison, compare_adapters


@python_errors
def compare(
    before: SourceLike,
    after: SourceLike,
    *,
    weights: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> Comparison:
    """Compares two adapters: method, base, modules, ranks, config and metrics; with `weights`, their updates.

        print(adaptry.compare("acme/tone@1", "acme/tone@2", weights=True, registry=registry))

    Args:
        before, after: Each a folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        weights: Reads the weights, and measures how far apart the updates ΔW are, module by module. This
            computes in float64 with torch; memory holds the factors of one module.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Returns:
        The differences. `distance` is None without `weights`; its figures are ratios of Frobenius norms
        (‖Δ_after − Δ_before‖ / ‖Δ_before‖) and cosines, so they have no unit.

    Raises:
        NotFound: there is no such folder or version.
        InvalidConfig, InvalidWeights: the files cannot be read as an adapter.
        Unsupported: with `weights`, an adapter that is not a sum of factors.
        CheckFailed: with `weights`, modules of different shapes: the adapters have different bases.
        MissingDependency: with `weights`, torch is not installed.
        Withdrawn, Unauthenticated, Unavailable.
    """
    first, second = parse_source(before), parse_source(after)
    with lazily_opened(registry) as connected, shown_progress(progress) as bars:
        return compare_adapters(connected, first, second, weights=weights, warn=warn, progress=bars)
