"""Policies of a namespace or an adapter: those in force, their history, a new one, and a dry run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import Ref
from adaptry.registry.aliases import PRODUCTION
from adaptry.registry.policies import PolicyInfo, PolicyRequest
from adaptry_api.pages.settings.fields import text_of
from adaptry_api.pages.settings.section import ActionResult, Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import OF_ADAPTER, OF_NAMESPACE, Visit

_MAX_POLICIES = 100
_HISTORY = 20
_DONE = {"set": "The policy is in force.", "remove": "The policy is removed."}
EXAMPLE = """alias: prod
require:
  - metric("accuracy") >= 0.8
  - fits("vllm")
"""


class PoliciesPage(BaseModel):
    """The policies in force for the subject, and the newest versions of the policy that the address names."""

    scope: str
    policies: tuple[PolicyInfo, ...]
    history: tuple[PolicyInfo, ...] = ()
    may_manage: bool = False

    @property
    def draft(self) -> str:
        """The initial text of the editor: the first policy that belongs to the subject itself."""
        return next((one.text for one in self.policies if one.scope == self.scope and one.text), "")


def _read(visit: Visit) -> PoliciesPage:
    if visit.place.adapter is None and not visit.identity.may_in("read", visit.place.namespace):
        raise NotFound(f"no namespace {visit.place.namespace}")
    scope, alias = visit.place.scope, visit.query.get("history", "")
    found = visit.registry.policies.list(scope)
    history = visit.registry.policies.history(scope, alias)[:_HISTORY] if alias else ()
    return PoliciesPage(
        scope=scope, policies=found[:_MAX_POLICIES], history=history, may_manage=_may_manage(visit)
    )


def _may_manage(visit: Visit) -> bool:
    adapter = visit.place.adapter
    if adapter is not None:
        return visit.identity.may("policy.manage", adapter)
    return visit.identity.may_in("policy.manage", visit.place.namespace)


def _set(visit: Visit, fields: Fields) -> ActionResult | None:
    text = fields.get("text", "").replace("\r\n", "\n")
    if not text.strip():
        raise Invalid("write the policy first: an alias, and what it requires")
    found = visit.registry.policies.set(PolicyRequest(scope=visit.place.scope, text=text))
    return ActionResult(found, {"done": _DONE["set"], "warnings": found.warnings}) if found.warnings else None


def _try(visit: Visit, fields: Fields) -> ActionResult:
    """A dry run: the decision about a version now, by the policy in the form or those in force."""
    written = text_of(fields, "version")
    adapter = visit.place.adapter
    ref = Ref.parse(f"{adapter}@{written}" if adapter and "/" not in written else written)
    if ref.name.namespace != visit.place.namespace or adapter not in (None, ref.name):
        raise Invalid(f"{ref} is not in {visit.place.scope}; name a version that the policy applies to")
    digest = visit.registry.versions.get(ref).digest
    text = fields.get("text", "").replace("\r\n", "\n")
    decision = visit.registry.policies.evaluate(
        ref.name, text_of(fields, "alias"), digest, policy=text if text.strip() else None
    )
    return ActionResult(decision, {"decision": decision, "is_typed": bool(text.strip())})


def _remove(visit: Visit, fields: Fields) -> None:
    visit.registry.policies.remove(visit.place.scope, text_of(fields, "alias"))


def _confirm(value: BaseModel, fields: Fields) -> Confirmation | None:
    page = cast(PoliciesPage, value)
    for one in page.policies:
        if one.scope == page.scope and one.alias == fields.get("alias"):
            text = (
                "From then on, the alias moves without these conditions. The policy's versions stay in"
                " the history."
            )
            title = f"Remove the policy of {one.scope} for {one.alias}?"
            return Confirmation(title, text, "Remove the policy", {"alias": one.alias})
    return None


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = ("scope", "alias", "version", "digest", "set_at", "set_by", "text")
    page = cast(PoliciesPage, value)
    return columns, ([getattr(one, column) for column in columns] for one in (page.history or page.policies))


def _section(address: str) -> Section:
    return Section(
        title="Policies",
        address=f"{address}/policies",
        template="settings_policies.html",
        read=_read,
        actions={"set": _set, "try": _try, "remove": _remove},
        done=_DONE,
        confirms={"remove": _confirm},
        table=_table,
        names=lambda _: {
            "decision": None,
            "is_typed": False,
            "example": EXAMPLE,
            "production": PRODUCTION,
            "warnings": (),
        },
    )


POLICIES = _section(OF_NAMESPACE)
ADAPTER_POLICIES = _section(OF_ADAPTER)
