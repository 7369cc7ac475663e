"""A version as text for people: `name, text` pairs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from adaptry.adapters.last_part import last_part
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.core.digest import Digest
from adaptry.core.recipe_summary import summarise_recipe
from adaptry.core.report import Finding
from adaptry.registry.aliases import ALIAS_MOVED
from adaptry.registry.commits import COMMIT_CREATED
from adaptry.registry.records import (
    AdapterInfo,
    Event,
    StateRecord,
    TensorInspection,
    VersionDetail,
    VersionInfo,
)
from adaptry_cli.output import format_count, format_number, format_size
from adaptry_cli.times import format_when

_DIGEST = re.compile(r"sha256:([0-9a-f]{12})[0-9a-f]{52}")
Facts = Iterator[tuple[str, str]]


def facts_of_version(
    detail: VersionDetail, info: AdapterInfo, parents: Mapping[Digest, Sequence[str]]
) -> Facts:
    """All facts about a version and its adapter; those that need attention first. `parents`: the versions
    that each of its parents is, as far as the registry has them.
    """
    version = detail.version
    yield "version", version.label
    yield "state", _state_text(version.state, version.last_state_change)
    if version.is_damaged:
        yield (
            "damaged",
            "some of its stored files are missing or changed; push them again, or run `adaptry repair`",
        )
    if detail.forced:
        yield "forced", f"the checks were overruled: {detail.forced}"
    yield "findings", findings_text(detail.report.findings, version.label)
    yield "inspected", _inspection_text(detail)
    if version.aliases:
        yield "aliases", ", ".join(version.aliases)
    if version.metrics:
        yield (
            "metrics",
            _lines(f"{name} {format_number(value)}" for name, value in sorted(version.metrics.items())),
        )
    yield "base", base_text(version) or "not named"
    yield from facts_of_spec(detail.spec)
    yield (
        "pushed",
        (
            f"{format_when(version.created_at)} by {version.created_by},"
            f" {format_count(version.downloads, 'download')}"
        ),
    )
    manifest = detail.manifest
    yield "digest", version.digest.brief
    yield "weights", version.weights.brief
    yield (
        "files",
        _lines(
            f"{format_size(entry.size):>9}  {entry.sha256.brief}  {entry.path}" for entry in manifest.files
        ),
    )
    if manifest.parents:
        yield "parents", _lines(_parent_text(parent, parents.get(parent, ())) for parent in manifest.parents)
    if manifest.recipe:
        yield "recipe", summarise_recipe(manifest.recipe)
    if manifest.provenance:
        yield "provenance", _lines(f"{key} {value}" for key, value in sorted(manifest.provenance.items()))
    yield from facts_of_adapter(info)


def _parent_text(parent: Digest, labels: Sequence[str]) -> str:
    return "  ".join([parent.brief, " = ".join(labels) or "not in this registry"])


def _state_text(state: str, change: StateRecord | None) -> str:
    """`active`, or a state with its author, time and reason."""
    if change is None:
        return state
    successor = f"; use {change.successor} instead" if change.successor else ""
    return f"{state}: {change.reason} ({change.by}, {format_when(change.at)}){successor}"


def facts_of_adapter(info: AdapterInfo) -> Facts:
    """Description, tags and counts of an adapter."""
    if info.description:
        yield "description", info.description
    if info.tags:
        yield "tags", ", ".join(info.tags)
    latest = "" if info.latest is None else f", the latest is {info.latest}"
    yield "adapter", f"{info.visibility}, {format_count(info.versions, 'version')}{latest}"


def facts_of_spec(spec: Spec) -> Facts:
    """The properties of an adapter, from its headers and config."""
    from adaptry_cli.capabilities import method_title  # imports all methods, which few commands need

    ranks = ", ".join(str(rank) for rank in spec.ranks)
    yield (
        "method",
        "   ".join(
            part
            for part in (method_title(spec.method), f"rank {ranks}" if ranks else "", *spec.traits)
            if part
        ),
    )
    if spec.modules:
        yield "modules", _lines(_groups(spec.modules))
    if spec.extras:
        yield (
            "replaces",
            _lines(f"{extra.target} {_shape(extra.shape)} ({extra.kind})" for extra in spec.extras),
        )
    if spec.unclaimed:
        yield "unused", _shortened(spec.unclaimed)
    yield "parameters", f"{spec.parameters:,} in {', '.join(spec.dtypes)}, {format_size(spec.size)}"
    written = ", ".join(
        part for part in (spec.task, spec.peft_version and f"PEFT {spec.peft_version}") if part
    )
    if written:
        yield "written for", written


def findings_text(findings: Iterable[Finding], ref: str = "REF") -> str:
    """Each finding, with its severity first and its remedy below. `ref` is the adapter in its commands."""
    lines = []
    for finding in findings:
        lines += [f"{finding.severity}: {finding.reason} [{finding.code}]", f"  → {finding.remedy_for(ref)}"]
    return "\n".join(lines) or "no findings"


def _inspection_text(detail: VersionDetail) -> str:
    """`8 tensors, norm 1.25`, with the number of non-finite values."""
    found = detail.inspection
    if found is None:
        version = detail.version
        return f"weights not inspected yet; run `adaptry inspect {version.label} --weights`"
    norm = "" if found.norm is None else f", norm {format_number(found.norm)}"
    bad = (
        f"; {found.nan:,} NaN and {found.infinite:,} infinite elements" if found.nan or found.infinite else ""
    )
    return f"{format_count(found.tensors, 'tensor')}{norm}{bad}"


def row_of_tensor(tensor: TensorInspection) -> tuple[str, ...]:
    """Tensor, norm, NaN, infinite: counts are empty if they are 0."""
    norm = "" if tensor.norm is None else format_number(tensor.norm)
    return tensor.tensor, norm, str(tensor.nan or ""), str(tensor.infinite or "")


def base_text(version: VersionInfo) -> str:
    """`org/model (verified)`; if the base has no name, the beginning of its id."""
    name = version.base_name or (version.base_id.brief if version.base_id else "")
    return f"{name} ({version.base_status})" if name else ""


def detail_text(event: Event) -> str:
    """`prod from 1 to 2`, `Fix a typo (to main, sha256:…)`; other events' text, with digests cut short."""
    detail = event.detail
    if event.kind == ALIAS_MOVED and event.number is not None:
        came = f" from {detail['was_number']}" if "was_number" in detail else ""
        return f"{detail.get('alias')}{came} to {event.number}"
    if event.kind == COMMIT_CREATED:
        return _brief(f"{detail.get('title')} (to {detail.get('branch')}, {detail.get('commit')})")
    return _brief(", ".join(f"{key} {value}" for key, value in detail.items()))


def _brief(text: str) -> str:
    """The value with digests cut short."""
    return _DIGEST.sub(r"sha256:\1", text)


def _groups(modules: Iterable[ModuleSpec]) -> Iterator[str]:
    """`30 × q_proj  rank 8, scale 2, 576 → 576`: modules of one name and shape are one line."""
    groups = Counter(
        (_short_name(module), module.rank, module.scale, module.fan_in, module.fan_out) for module in modules
    )
    for (name, rank, scale, fan_in, fan_out), count in sorted(groups.items()):
        numbers = [f"rank {rank}"] if rank else []
        numbers += [f"scale {format_number(scale)}"] if rank or scale != 1 else []
        numbers += [f"{fan_in or '?'} → {fan_out or '?'}"] if fan_in or fan_out else []
        yield f"{count} × {name}   {', '.join(numbers)}".rstrip()


def _short_name(module: ModuleSpec) -> str:
    """`q_proj`; of one of a module's parameters `experts.down_proj`, of a whole layer `layers`."""
    parts = module.name.split(".")
    if module.parameter:
        return ".".join(parts[-2:])
    return last_part(next((part for part in reversed(parts) if not part.isdecimal()), module.name))


def _shape(shape: Iterable[int]) -> str:
    return "×".join(str(dim) for dim in shape)


def _shortened(names: tuple[str, ...], shown: int = 5) -> str:
    more = [f"and {len(names) - shown} more"] if len(names) > shown else []
    return _lines([*names[:shown], *more])


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def json_of_spec(spec: Spec) -> Mapping[str, object]:
    """The spec with derived fields."""
    return {**spec.model_dump(mode="json"), "rank": spec.rank, "targets": list(spec.targets)}
