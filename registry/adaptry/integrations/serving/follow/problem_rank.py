"""The names that a worker does not serve as desired, with the reasons, most serious first.

A report has room for a limited number of problems. A name whose requests fail because the engine has no
version of it comes before a name that has a version other than the desired one. A name without a slot comes
last: it was requested less recently than those that have one, and nothing is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.follow.desired_state import DesiredState
from adaptry.integrations.serving.follow.plan import DesiredAdapter
from adaptry.registry.records import VersionInfo


def target_problems(desired: DesiredState, targets: Iterable[tuple[str, VersionInfo]]) -> dict[str, str]:
    """The names of `targets` whose version failed or is withdrawn."""
    problems: dict[str, str] = {}
    for name, version in targets:
        if reason := desired.backoff.problem((name, version.digest)):
            problems[name] = reason
        elif not desired.is_usable(version):
            problems[name] = f"{version.label} is withdrawn; move the alias to another version"
    return problems


def ranked_problems(
    problems: Mapping[str, str],
    loaded: Sequence[EngineAdapter],
    without_slot: Sequence[DesiredAdapter],
    slots: int,
) -> dict[str, str]:
    """`problems` in order: first the names that the engine lacks, then those that it has, each sorted by
    name. Then the names without a slot that have no other problem."""
    listed = {one.name for one in loaded}
    ranked = {name: problems[name] for name in sorted(problems, key=lambda name: (name in listed, name))}
    for one in sorted(without_slot, key=lambda one: one.served_as):
        reason = f"no slot is free for {one.version.label} ({slots} are in use)"
        ranked.setdefault(one.served_as, reason)
    return ranked
