"""Checks: what is wrong with an adapter, by itself and on its base, before anyone loads it.

Pure functions of headers, config and the base's record. `check` reads no weight (`weights.check_weights`
does, when asked) and never raises for what it finds: a finding says it, with a remedy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.bases.layer_replication import LayersBeyondBase, deeper_record, replicated_layers
from adaptry.checks.base.bound import check_bound
from adaptry.checks.base.coverage import check_coverage
from adaptry.checks.base.fit import check_fit
from adaptry.checks.base.identity import check_name, check_same_base
from adaptry.checks.base.pipelines import check_pipeline_fit
from adaptry.checks.base.prompts import check_prompt, check_prompt_fit
from adaptry.checks.base.tokenizer import check_tokenizer
from adaptry.checks.binding import bind
from adaptry.checks.codes import AGAINST_BASE, build_finding
from adaptry.checks.intrinsic import check_intrinsic
from adaptry.checks.other_formats import check_other_format, excuse_mlx_experts
from adaptry.checks.weights import check_weights
from adaptry.core.errors import Unsupported
from adaptry.core.report import CheckReport, Finding

__all__ = ["check", "check_same_base", "check_weights", "sort_findings", "without_base"]

_TOLD_BY_BASE = frozenset(["base_weight_replaced", "weights_not_loaded"])
_ORDER = ("blocks", "warns", "notes")


def check(
    adapter: Adapter,
    base: BaseRecord | None,
    base_name: str | None = None,
    *,
    other_names: Collection[str] = (),
) -> CheckReport:
    """All findings about `adapter`, the serious ones first; with `base`, whether it fits it.

    `base_name` is what the base is called where it is known, `other_names` are its other names and those of
    bases with the same weights. Raises `InvalidConfig` only where the config contradicts itself so that no
    spec can be derived.
    """
    is_foreign = adapter.format is not PEFT
    findings = list(
        check_other_format(adapter) if is_foreign else (*check_intrinsic(adapter), *check_prompt(adapter))
    )
    if base is None:
        findings.append(_unknown_base(base_name or adapter.config.base_name))
    else:
        findings.extend(check_name(adapter, base_name, other_names))
        fits = _against if adapter.format.names_modules else check_pipeline_fit
        findings = _without_guesses(findings, found := list(fits(adapter, base)))
        findings += [*found, *check_tokenizer(adapter, base)]
    return CheckReport(findings=sort_findings(findings), base=base_name or (str(base.id) if base else None))


def _without_guesses(alone: Iterable[Finding], on_base: Iterable[Finding]) -> list[Finding]:
    """What is found without the base, but for tensors of no known use, of which the base tells more."""
    is_told = not _TOLD_BY_BASE.isdisjoint(found.code for found in on_base)
    return [found for found in alone if not (is_told and found.code == "keys_unknown")]


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The serious ones first, otherwise in their order."""
    return tuple(sorted(findings, key=lambda found: _ORDER.index(found.severity)))


def without_base(report: CheckReport, base_name: str | None, written: str | None) -> CheckReport:
    """What `check` would have reported for the same adapter if its base were not known.

    `base_name` is the name that the adapter was declared with, `written` the one in its config.
    """
    alone = [found for found in report.findings if found.code not in AGAINST_BASE]
    return CheckReport(findings=sort_findings([*alone, _unknown_base(base_name or written)]), base=base_name)


def _against(adapter: Adapter, base: BaseRecord) -> list[Finding]:
    is_repeated = "layer_replication" in adapter.spec.traits
    findings: list[Finding] = []
    if is_repeated:
        said = f"layer_replication is {adapter.config.fields['layer_replication']}"
        try:
            base = deeper_record(base, replicated_layers(adapter.config))
        except LayersBeyondBase as error:
            return [build_finding("peft_refuses", f"it {error.message}")]
        except Unsupported as error:
            return [build_finding("layers_renumbered", f"{said}, and was not checked: it {error.message}")]
        findings.append(build_finding("layers_renumbered", said))
    bound = bind(adapter, base, layers_repeated=is_repeated)
    module_map = bound.module_map
    findings.extend(excuse_mlx_experts(found) for found in check_fit(adapter, base, module_map))
    findings.extend(check_bound(bound))
    findings.extend(check_prompt_fit(adapter, base))
    if not any(found.severity == "blocks" for found in findings):
        findings.extend(check_coverage(bound))
    return findings


def _unknown_base(name: str | None) -> Finding:
    if name is None:
        return build_finding("base_unknown", "the adapter names no base and none was given")
    return build_finding(
        "base_unknown", f"no base is known as {name[:120]!a}, so its modules and shapes were not checked"
    )
