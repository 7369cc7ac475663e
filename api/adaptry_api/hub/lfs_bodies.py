"""Request bodies of Git LFS, parsed strictly; unknown fields, which later versions may add, are ignored."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, Unsupported
from adaptry.registry import protocol
from adaptry_api.auth_policy import app_state_of
from adaptry_api.bodies import read_body, read_json
from adaptry_api.faults import first_fault

LFS_MEDIA_TYPE = "application/vnd.git-lfs+json"
_LIMITS = strictjson.JsonLimits(size=protocol.JSON_LIMIT, nodes=20_000)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LfsBody(BaseModel):
    """A request body of Git LFS; values are frozen."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class LfsObject(LfsBody):
    """A file by its SHA-256 and size."""

    oid: Sha256
    size: int = Field(ge=0, lt=2**63)

    @property
    def digest(self) -> Digest:
        return Digest(self.oid)


class LfsBatchRequest(LfsBody):
    """The files to upload, and the transfers that the client supports."""

    operation: Literal["upload", "download"]
    objects: tuple[LfsObject, ...] = Field(max_length=1024)
    transfers: tuple[str, ...] = Field(default=("basic",), max_length=16)
    hash_algo: Literal["sha256", "sha_256"] = "sha256"
    """The same algorithm, with an underscore, as only the JavaScript client writes it."""

    @property
    def wants_xet(self) -> bool:
        """Whether to use Xet for large files: if the JavaScript client offers it (`useXet`).

        Python clients of 0.36 to 1.19 offer it too, but Git LFS is better for them: it sends no file twice.
        """
        return "xet" in self.transfers and self.hash_algo == "sha_256"


class LfsPart(LfsBody):
    """A part that the client has sent."""

    part_number: int = Field(alias="partNumber", ge=1)


class LfsCompletionRequest(LfsBody):
    """All parts are sent."""

    oid: Sha256
    parts: tuple[LfsPart, ...] = Field(max_length=10_000)


Body = TypeVar("Body", bound=LfsBody)


async def read_lfs_body(request: Request, kind: type[Body]) -> Body:
    """The request's body. Raises `Invalid`, `TooLarge`, and `Unsupported` for one that is not JSON."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in (LFS_MEDIA_TYPE, "application/json"):
        raise Unsupported(f"the body must be {LFS_MEDIA_TYPE}")
    data = await read_body(request, protocol.JSON_LIMIT)
    try:
        return await read_json(data, _LIMITS, app_state_of(request).parse_slots, kind.model_validate)
    except ValidationError as error:
        raise Invalid(f"cannot read the request: {first_fault(error)}") from None
