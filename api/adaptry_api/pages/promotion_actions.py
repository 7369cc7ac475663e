"""Actions of the promotion dialog: move an alias, override its conditions, approve the move.

Every form carries the alias's generation when its page was made. If the alias has moved since, the action is
refused, and the page shows the moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, Invalid, MissingDependency, NotFound
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.core.validation import validated
from adaptry.registry.aliases import MoveRequest
from adaptry.registry.interface import Registry
from adaptry.registry.records import Event, VersionInfo
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.denials import set_denial_reason
from adaptry_api.errors import status_of
from adaptry_api.hub.addresses import Name
from adaptry_api.pages.adapter_addresses import ALIAS_ADDRESS, AliasName, alias_address, promotion_address
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.promotion_page import moves_since, promotion_page, render_promotion
from adaptry_api.route_threads import run_in_own_threads

ROUTES = page_router()
_MAX_BODY = 16 << 10
"""Bytes of a form: a reason of 1,024 characters has up to 12 KiB as forms encode it."""
_REASON = "to override conditions, write a reason of 3 to 1024 characters"


@dataclass(frozen=True, slots=True)
class PromotionForm:
    """The fields of a form: the version's number, and the alias's generation when the form was made (None: it
    did not exist).
    """

    number: int
    generation: int | None
    reason: str


async def read_promotion_form(request: Request) -> PromotionForm:
    """Reads the form in the request's body. Raises `Unsupported`, `Invalid`, `TooLarge`."""
    fields = await read_form(request, _MAX_BODY)
    number = _whole(fields, "number")
    if number is None or not 0 < number < 2**31:
        raise Invalid("the form names no version; open the page again")
    return PromotionForm(number, _whole(fields, "generation"), fields.get("reason", "").strip())


def _whole(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"the form's {name} is not a number; open the page again")
    return int(text) if text else None


Form = Annotated[PromotionForm, Depends(read_promotion_form)]


@dataclass(frozen=True)
class PromotionAction:
    """The subject of a form, and its sender."""

    request: Request
    registry: Registry
    visitor: Identity
    alias: str
    version: VersionInfo
    form: PromotionForm

    @property
    def name(self) -> AdapterName:
        return self.version.name

    def move(self, request: MoveRequest) -> str:
        """Moves the alias. Returns the address that shows the effect."""
        generation = self.form.generation
        self.registry.aliases.move(self.name, self.alias, self.version.digest, generation, request)
        return alias_address(self.name, self.alias)


async def _action(
    request: Request, name: Name, alias: AliasName, registry: VisitorsRegistry, visitor: Visitor, form: Form
) -> PromotionAction:
    ref = Ref(name, Number(form.number))
    version = await run_in_own_threads("reads", partial(registry.versions.get, ref))
    return PromotionAction(request, registry, visitor, alias, version, form)


Action = Annotated[PromotionAction, Depends(_action)]


@ROUTES.post(f"{ALIAS_ADDRESS}/promote", response_model=None)
def promote_on_page(action: Action) -> Response:
    """Moves the alias, if its conditions are met."""
    return _answer(action, lambda: action.move(MoveRequest()))


@ROUTES.post(f"{ALIAS_ADDRESS}/override", response_model=None)
def override_on_page(action: Action) -> Response:
    """Moves the alias although conditions are not met, with a reason."""

    def act() -> str:
        return action.move(validated(MoveRequest, {"override": _REASON}, override=action.form.reason))

    return _answer(action, act)


@ROUTES.post(f"{ALIAS_ADDRESS}/approve", response_model=None)
def approve_on_page(action: Action) -> Response:
    """Gives the visitor's approval of the move from where the alias is, if that is where they saw it."""

    def act() -> str:
        generation = action.form.generation or 0
        action.registry.policies.approve(action.name, action.alias, action.version.digest, generation)
        return promotion_address(action.name, action.version.number, action.alias)

    return _answer(action, act)


@ROUTES.post(f"{ALIAS_ADDRESS}/withdraw", response_model=None)
def withdraw_on_page(action: Action) -> Response:
    """Takes the visitor's approval back."""

    def act() -> str:
        action.registry.policies.withdraw_approval(action.name, action.alias, action.version.digest)
        return promotion_address(action.name, action.version.number, action.alias)

    return _answer(action, act)


def _answer(action: PromotionAction, act: Callable[[], str]) -> Response:
    try:
        return RedirectResponse(act(), 303)
    except (CheckFailed, Conflict, Invalid, MissingDependency, NotFound) as error:
        return _refused(action, error)


def _refused(action: PromotionAction, error: AdaptryError) -> Response:
    """The current page, with the reason why the action was refused."""
    set_denial_reason(action.request.scope, error)
    page = promotion_page(action.registry, action.visitor, action.version.revision_ref, action.alias)
    meanwhile: tuple[Event, ...] = ()
    if isinstance(error, Conflict):
        meanwhile = moves_since(action.registry, action.name, action.alias, action.form.generation)
    problem = error.public_message
    if isinstance(error, CheckFailed):  # the page lists the conditions
        problem = f"{action.name}@{action.alias} was not moved: not all of its conditions are met"
    update = {"problem": problem, "meanwhile": meanwhile}
    return render_promotion(action.request, page.model_copy(update=update), status_of(error))
