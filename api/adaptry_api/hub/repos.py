"""`/api/repos/…`: creates, deletes and renames adapters."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from adaptry.core.errors import Conflict, NotFound, Unsupported
from adaptry.core.identity import Identity, Visibility
from adaptry.core.refs import AdapterName
from adaptry.registry.adapters import Adapters
from adaptry.registry.records import AdapterEdit
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of
from adaptry_api.hub.addresses import adapter_name, origin, url_path_of
from adaptry_api.hub.name_case import canonical_adapter
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.results_inbox import created, is_inbox
from adaptry_api.hub.whoami import own_namespace

ROUTES = hub_router()


class RepoRequest(BaseModel):
    """A repository: its name, or its namespace separately (`organization`), depending on the client's
    version.
    """

    name: str = Field(min_length=1, max_length=200)
    organization: str | None = Field(default=None, max_length=96)
    type: str | None = None

    def full_name(self, identity: Identity) -> str:
        """The repository's name. Raises `Unsupported` if its type is not `model`."""
        if self.type not in (None, "model"):
            raise Unsupported(
                f"this registry stores only adapters, which are models, not a {self.type[:20]!a}"
            )
        return self.joined_name(identity)

    def joined_name(self, identity: Identity) -> str:
        """The name with its namespace, by default the caller's own."""
        if "/" in self.name:
            return self.name
        return f"{self.organization or own_namespace(identity)}/{self.name}"


class RepoCreateRequest(RepoRequest):
    """The visibility; newer clients send `visibility`, older ones `private`."""

    visibility: Visibility | None = None
    private: bool | None = None

    @property
    def edit(self) -> AdapterEdit:
        return AdapterEdit(visibility=visibility_of(self.visibility, self.private))


class RepoMoveRequest(BaseModel):
    """A rename from one name to another."""

    fromRepo: str = Field(max_length=200)  # noqa: N815  the protocol's spelling
    toRepo: str = Field(max_length=200)  # noqa: N815
    type: str | None = None


@ROUTES.post("/api/repos/create")
def create(
    request: Request, body: RepoCreateRequest, identity: Caller, registry: CallersRegistry
) -> Response:
    """Creates an adapter. If it exists, the 409 has its address, and clients with `exist_ok` continue."""
    if body.type == "dataset" and is_inbox(data_set := body.joined_name(identity)):
        return created(request, data_set)
    wanted = AdapterName.parse(body.full_name(identity))
    # For this protocol, names that differ only by case are equal; the answer has the existing spelling.
    name = canonical_adapter(app_state_of(request), identity, wanted)
    where = {"url": f"{origin(request)}/{url_path_of(str(name))}", "name": str(name), "id": str(name)}
    try:
        registry.adapters.create(name, body.edit)
    except Conflict as error:
        return JSONResponse({"error": _why_taken(registry.adapters, name, error), **where}, 409)
    return JSONResponse(where)


@ROUTES.delete("/api/repos/delete")
def delete(request: Request, body: RepoRequest, identity: Caller, registry: CallersRegistry) -> None:
    name = adapter_name(body.full_name(identity))
    registry.adapters.delete(canonical_adapter(app_state_of(request), identity, name))


@ROUTES.post("/api/repos/move")
def move(request: Request, body: RepoMoveRequest, identity: Caller, registry: CallersRegistry) -> None:
    if body.type not in (None, "model"):
        raise Unsupported("this registry stores only adapters, which are models")
    name = canonical_adapter(app_state_of(request), identity, adapter_name(body.fromRepo))
    registry.adapters.rename(name, AdapterName.parse(body.toRepo))


def _why_taken(adapters: Adapters, name: AdapterName, error: Conflict) -> str:
    try:
        adapters.get(name)
    except NotFound:
        return error.message  # a base has this name
    return "You already created this model repo"


def visibility_of(visibility: Visibility | None, private: bool | None) -> Visibility | None:
    if visibility is not None or private is None:
        return visibility
    return "private" if private else "public"
