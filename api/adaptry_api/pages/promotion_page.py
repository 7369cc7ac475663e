"""The promotion dialog: the conditions that a move does not meet yet, its approvals, and its effects.

It is a separate page; with scripts, the adapter's page shows it as a dialog. It describes the alias as it is
now: the forms carry its generation, so an alias that has moved since is not moved again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.core.access.conditions import Facts
from adaptry.core.errors import Conflict, Invalid, MissingDependency, Unavailable
from adaptry.core.gates.decision import PromotionDecision, verdict_sentence
from adaptry.core.gates.facts import ApprovalFact
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref, parse_stored_alias
from adaptry.registry.aliases import ALIAS_MOVED, PRODUCTION
from adaptry.registry.interface import Registry
from adaptry.registry.policies import ApprovalInfo
from adaptry.registry.records import AliasInfo, Event, VersionInfo
from adaptry.registry.rollouts import RolloutInfo
from adaptry.registry.state_warnings import state_warning
from adaptry.registry.workers import ResidentSummary
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.pages.adapter_addresses import (
    VERSION_ADDRESS,
    NumberedRef,
    alias_address,
    version_address,
)
from adaptry_api.pages.page_responses import render, wants_html
from adaptry_api.pages.page_routes import page_router

ROUTES = page_router()
PROMOTE = f"{VERSION_ADDRESS}/promote"
_NEEDED = re.compile(r"approvals\(\s*(?:group\s*=\s*)?[\"']([^\"']+)[\"']\s*\)\s*(>=|>|==)\s*(\d{1,4})")
_MAX_EVENTS = 200
_WORKERS = 12
NO_WORKERS = ResidentSummary()
"""The summary of a version that no worker has, or if there is no version."""


class PromotionRights(BaseModel):
    """The visitor's rights on the alias, regardless of the conditions."""

    move: bool = False
    override: bool = False
    approve: bool = False


class PromotionPage(BaseModel):
    """A planned move of `alias` to `version`, and the facts that decide whether it is allowed.

    `current` is the alias now, None if it does not exist. `decision` is what `aliases.move` would decide for
    the visitor; None if that cannot be decided, with the reason in `obstacle`. `approvals` are those of this
    move, withdrawn and void ones left out. `serving` are workers with the version that the alias is at now,
    `switching` those of them that serve it as the alias, and `loaded` those with the new one. After an action
    that was refused, `problem` says why, and `meanwhile` lists the moves of the alias since the visitor
    looked, newest first.
    """

    version: VersionInfo
    alias: str
    current: AliasInfo | None = None
    aliases: tuple[AliasInfo, ...] = ()
    decision: PromotionDecision | None = None
    obstacle: str | None = None
    approvals: tuple[ApprovalInfo, ...] = ()
    serving: ResidentSummary = NO_WORKERS
    switching: ResidentSummary = NO_WORKERS
    loaded: ResidentSummary = NO_WORKERS
    rollout: RolloutInfo | None = None
    may: PromotionRights
    warning: str | None = None
    problem: str | None = None
    meanwhile: tuple[Event, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether the alias already points at the version."""
        return self.current is not None and self.current.digest == self.version.digest

    @property
    def is_allowed(self) -> bool:
        return self.decision is not None and self.decision.is_allowed and not self.is_there


@dataclass(frozen=True, slots=True)
class ApprovalCount:
    """The approvals of a group that count, and how many are needed; None if no condition is as simple as
    `approvals("release") >= 2`.
    """

    fact: ApprovalFact
    needed: int | None


@ROUTES.get(PROMOTE, response_model=None)
def show_promotion(
    request: Request,
    ref: NumberedRef,
    registry: VisitorsRegistry,
    visitor: Visitor,
    alias: Annotated[str, Query(max_length=128)] = PRODUCTION,
) -> Response:
    """The promotion dialog for a move of the alias to the version."""
    return render_promotion(request, promotion_page(registry, visitor, ref, parse_stored_alias(alias)))


def promotion_page(registry: Registry, visitor: Identity, ref: Ref, alias: str) -> PromotionPage:
    """The data of the promotion page. Raises `NotFound`."""
    version, aliases = registry.versions.get(ref), registry.aliases.list(ref.name)
    current = next((one for one in aliases if one.alias == alias), None)
    decision, obstacle = _decision(registry, version, alias)
    return PromotionPage(
        version=version,
        alias=alias,
        current=current,
        aliases=aliases,
        decision=decision,
        obstacle=obstacle,
        approvals=tuple(
            one
            for one in registry.policies.approvals(ref.name, alias)
            if one.digest == version.digest and not one.is_void and one.withdrawn_at is None
        ),
        serving=workers_with(registry, ref.name, current.number) if current else NO_WORKERS,
        switching=workers_with(registry, ref.name, current.number, alias) if current else NO_WORKERS,
        loaded=workers_with(registry, ref.name, version.number),
        rollout=next(
            (
                one
                for one in registry.rollouts.list(ref.name)
                if one.alias == alias and one.stage == "running"
            ),
            None,
        ),
        may=rights_of(visitor, ref.name, alias),
        warning=state_warning(version),
    )


def rights_of(visitor: Identity, name: AdapterName, alias: str) -> PromotionRights:
    """The visitor's rights on the alias; the registry checks them again for each action."""
    facts = Facts(alias, None, datetime.now(UTC))
    return PromotionRights(
        move=visitor.may("alias.move", name, facts),
        override=visitor.may("policy.override", name, facts),
        approve=visitor.may("approve", name, facts),
    )


def render_promotion(request: Request, page: PromotionPage, status: int = 200) -> Response:
    if not wants_html(request):
        return render(request, "promotion.html", page, {}, status)
    names = {
        "address": f"{version_address(page.version.name, page.version.number)}/promote",
        "actions": alias_address(page.version.name, page.alias),
        "verdict": verdict_sentence(page.decision) if page.decision else "",
        "counts": tuple(approval_counts(page.decision)) if page.decision else (),
        "served_as": f"{page.version.name}@{page.alias}",
        "generation": page.current.generation if page.current else "",
    }
    return render(request, "promotion.html", page, names, status)


def moves_since(
    registry: Registry, name: AdapterName, alias: str, generation: int | None
) -> tuple[Event, ...]:
    """The moves and removals of an alias after `generation` (None: all), newest first, among the newest
    events of its adapter.
    """
    events = registry.adapters.history(name, None, _MAX_EVENTS).items
    return tuple(
        event
        for event in events
        if event.kind in (ALIAS_MOVED, "alias.removed")
        and event.detail.get("alias") == alias
        and int(event.detail.get("generation", "0")) > (generation or 0)
    )


def approval_counts(decision: PromotionDecision) -> Iterator[ApprovalCount]:
    """A count for each group that a condition names."""
    for fact in decision.facts.approvals:
        yield ApprovalCount(fact, _needed(fact.group, (one.condition for one in decision.results)))


def _needed(group: str, conditions: Iterable[str]) -> int | None:
    found = [
        int(match[3]) + (match[2] == ">")
        for match in map(_NEEDED.fullmatch, (text.strip() for text in conditions))
        if match and match[1] == group
    ]
    return max(found, default=None)


def _decision(
    registry: Registry, version: VersionInfo, alias: str
) -> tuple[PromotionDecision | None, str | None]:
    try:
        return registry.policies.evaluate(version.name, alias, version.digest), None
    except (Conflict, Invalid, MissingDependency, Unavailable) as error:
        return None, error.public_message


def workers_with(
    registry: Registry, name: AdapterName, number: int, alias: str | None = None
) -> ResidentSummary:
    """The number of workers that may serve a version, under any name or as an alias, and the first of
    them.
    """
    served_as = f"{name}@{alias}" if alias is not None else None
    return registry.workers.resident_summary(Ref.parse(f"{name}@{number}"), _WORKERS, served_as)
