"""A section of the settings as a value, and the routes that it makes: GET for the page, POST for its forms.

A form names its action in the field `do`. After an action that succeeded, the browser is sent back to the
page; an error is shown beside the form, with what was typed. A secret is in the answer to its form, and
nowhere else. What deletes or ends something is confirmed first: `?confirm=` shows the page with a dialog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import AdaptryError, Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.job_types.task import reason_of
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.denials import set_denial_reason, set_form_action
from adaptry_api.errors import status_of
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.page_responses import render, wants_html
from adaptry_api.pages.settings.navigation import sections_for
from adaptry_api.pages.settings.subject import SettingsSubject, Visit
from adaptry_api.pages.text_csv import csv_file
from adaptry_api.route_threads import run_in_own_threads

Fields = Mapping[str, str]
_MAX_FORM_BYTES = 64 << 10
_MAX_FIELDS = 24
_SELECTION = ("q", "principal", "of", "cursor", "members")
"""Parameters of an address that select the entries of its list."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The result of an action that shows something instead of returning to the page: names for the template,
    such as a secret, which is shown once. `value` is the same as JSON.
    """

    value: BaseModel
    names: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The dialog before an action: a question, what follows from it, and the word on the button.

    Its form sends `fields`: only those that the dialog names, since the address is untrusted input.
    """

    title: str
    text: str
    button: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class SubmittedForm:
    """A submitted form: its action, its fields, and the error message, if any."""

    do: str
    fields: Fields
    problem: str = ""


Read = Callable[[Visit], BaseModel]
Action = Callable[[Visit, Fields], ActionResult | str | None]
"""The result: a page to show, an address to redirect to, or None to return to the same page."""
Confirm = Callable[[BaseModel, Fields], Confirmation | None]
Table = Callable[[BaseModel], tuple[Sequence[str], Iterable[Sequence[object]]]]


@dataclass(frozen=True, slots=True)
class Section:
    """`done` has a sentence for each action that succeeded, and `confirms` a dialog for each that needs one,
    made from the page's value and the fields of the action; None if there is no such thing on the page.
    """

    title: str
    address: str
    template: str
    read: Read
    actions: Mapping[str, Action] = field(default_factory=dict)
    done: Mapping[str, str] = field(default_factory=dict)
    confirms: Mapping[str, Confirm] = field(default_factory=dict)
    table: Table | None = None
    names: Callable[[Visit], Mapping[str, object]] = lambda _: {}

    def show(
        self,
        request: Request,
        visit: Visit,
        typed: SubmittedForm | None = None,
        shown: Mapping[str, object] | None = None,
        status: int = 200,
    ) -> Response:
        """The page, as HTML, JSON or CSV."""
        value = self.read(visit)
        if self.table is not None and visit.query.get("format") == "csv":
            columns, rows = self.table(value)
            return csv_file(f"{self.title.lower().replace(' ', '-')}.csv", columns, rows)
        names = {
            "section": self,
            "place": visit.place,
            "here": request.scope["path"],
            "groups": sections_for(visit.identity, visit.place),
            "typed": typed,
            "selection": {name: visit.query[name] for name in _SELECTION if visit.query.get(name)},
            "done": self.done.get(visit.query.get("done", "")) if typed is None else None,
            "confirmation": self._confirmation(value, visit),
            "secret": None,
            **self.names(visit),
            **(shown or {}),
        }
        return render(request, self.template, value, names, status)

    def act(self, request: Request, visit: Visit, fields: Fields) -> Response:
        """Carries out a form's action. Raises `Invalid` for an action that the section does not have."""
        do = fields.get("do", "")
        set_form_action(request.scope, do)
        action = self.actions.get(do)
        if action is None:
            raise Invalid("the form names no action of this page; load the page again")
        try:
            shown = _call(action, visit, fields)
        except AdaptryError as error:
            if not wants_html(request):
                raise
            set_denial_reason(request.scope, error)
            typed = SubmittedForm(do, fields, error.public_message)
            return self.show(request, visit, typed, status=status_of(error))
        if shown is None:
            return RedirectResponse(f"{request.scope['path']}?done={do}", 303)
        if isinstance(shown, str):
            return RedirectResponse(shown, 303)
        if not wants_html(request):
            return Response(shown.value.model_dump_json(by_alias=True), media_type="application/json")
        return self.show(request, visit, typed=SubmittedForm(do, fields), shown=shown.names)

    def _confirmation(self, value: BaseModel, visit: Visit) -> Mapping[str, object] | None:
        confirm = self.confirms.get(do := visit.query.get("confirm", ""))
        found = confirm(value, visit.query) if confirm else None
        if found is None:
            return None
        return {"dialog": found, "do": do}


def add_sections(router: APIRouter, sections: Iterable[Section]) -> None:
    """Adds the routes of each section."""
    for section in sections:
        _add(router, section)


def _add(router: APIRouter, section: Section) -> None:
    def show(request: Request, registry: VisitorsRegistry, identity: Visitor) -> Response:
        return section.show(request, _visit(request, registry, identity))

    async def change(request: Request, registry: VisitorsRegistry, identity: Visitor) -> Response:
        fields = await read_form(request, _MAX_FORM_BYTES, _MAX_FIELDS)
        visit = _visit(request, registry, identity)
        return await run_in_own_threads("writers", partial(section.act, request, visit, fields))

    router.add_api_route(section.address, show, methods=["GET"], response_model=None)
    if section.actions:
        router.add_api_route(section.address, change, methods=["POST"], response_model=None)


def _visit(request: Request, registry: VisitorsRegistry, identity: Visitor) -> Visit:
    numbers = {name: str(text) for name, text in request.path_params.items() if name == "id"}
    query = {name: text[:1024] for name, text in request.query_params.items()}
    return Visit(registry, identity, SettingsSubject.of(request), query, numbers)


def _call(action: Action, visit: Visit, fields: Fields) -> ActionResult | str | None:
    """Calls the action with the form's fields. Raises `Invalid` in place of pydantic's error."""
    try:
        return action(visit, fields)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise Invalid(f"{where}: {reason_of(error)}" if where else reason_of(error)) from None
