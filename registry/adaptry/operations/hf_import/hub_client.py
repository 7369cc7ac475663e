"""A hub, asked through `huggingface_hub` what it has: revisions with their files, and lists of repositories.

Nothing is read of a file here but where it lies and what it must be: the hub tells the SHA-256 of large files
and git's id of small ones. Whatever goes wrong is one of our own errors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptry.core.digest import Digest
from adaptry.core.errors import MissingDependency, NotFound, PermissionDenied, Unauthenticated, Unavailable
from adaptry.operations.hf_import.hub_names import HubRef

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WHO = 401


@dataclass(frozen=True, slots=True)
class HubFileInfo:
    """A file of a revision. `sha256` is told of large files, `git_id` (git's SHA-1) of every one."""

    path: str
    size: int
    sha256: Digest | None
    git_id: str | None


@dataclass(frozen=True, slots=True)
class HubRepoRevision:
    """One commit of a repository: `commit` names it for ever. `tags` are the hub's for the repository."""

    repository: str
    commit: str
    files: Mapping[str, HubFileInfo]
    tags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"hf:{self.repository}@{self.commit[:12]}"


@dataclass(frozen=True, slots=True)
class HubRepoInfo:
    """A repository in a list: its newest commit and the names of its files, where the hub tells them."""

    repository: str
    commit: str | None
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DownloadLocation:
    """Where the bytes of a file are for now, and what to send along when asking there."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HubClient:
    """`endpoint` is its address."""

    endpoint: str
    token: str | None
    api: HfApi

    def resolve(self, ref: HubRef) -> HubRepoRevision:
        """What a ref means now. Raises `NotFound`, `PermissionDenied` (gated), `Unavailable`."""
        with _translate_errors(self, str(ref)):
            info = self.api.model_info(ref.repository, revision=ref.revision, files_metadata=True)
        files = {each.rfilename: _file(each) for each in info.siblings or ()}
        if info.sha is None:
            raise Unavailable(f"{self.endpoint} does not say which commit {ref} is; ask again")
        return HubRepoRevision(info.id, info.sha, files, tuple(info.tags or ()))

    def list_models(
        self, author: str | None, search: str | None, filters: tuple[str, ...], limit: int
    ) -> Iterator[HubRepoInfo]:
        """The repositories of models that match, as many as `limit` at most. Raises `Unavailable`."""
        with _translate_errors(self, author or "its models"):
            found = self.api.list_models(
                author=author, search=search, filter=list(filters) or None, limit=limit, full=True
            )
            for info in found:
                yield HubRepoInfo(
                    info.id, info.sha, tuple(sorted(each.rfilename for each in info.siblings or ()))
                )

    def collection(self, slug: str) -> Iterator[str]:
        """The models of a collection. Raises as `revision`."""
        with _translate_errors(self, slug):
            for item in self.api.get_collection(slug).items:
                if item.item_type == "model":
                    yield item.item_id

    def locate_file(self, revision: HubRepoRevision, path: str) -> DownloadLocation:
        """Where a file lies. Raises as `revision`."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(revision.repository, path, revision=revision.commit, endpoint=self.endpoint)
        with _translate_errors(self, f"{path} of {revision}"):
            found = get_hf_file_metadata(url, token=self.token or False)
        is_own = found.location.startswith(f"{self.endpoint}/")  # storage elsewhere must not see the token
        send = {"Authorization": f"Bearer {self.token}"} if self.token and is_own else {}
        return DownloadLocation(found.location, send)


def open_hub() -> HubClient:
    """The hub and the token by HF_ENDPOINT, HF_TOKEN and `hf auth login`. Raises `MissingDependency`."""
    try:
        from huggingface_hub import HfApi, get_token
    except ModuleNotFoundError as error:
        raise MissingDependency(f"a hub is asked through {error.name}: pip install 'adaptry[hub]'") from error
    token = get_token()
    api = HfApi(token=token or False, library_name="adaptry")
    return HubClient(api.endpoint.rstrip("/"), token, api)


def _file(sibling: Any) -> HubFileInfo:
    """(`Any`: a client's record; its fields are the same in all versions, its class is not.)"""
    sha256 = Digest.parse(f"sha256:{sibling.lfs['sha256']}") if sibling.lfs else None
    return HubFileInfo(sibling.rfilename, sibling.size or 0, sha256, sibling.blob_id)


@contextmanager
def _translate_errors(hub: HubClient, what: str) -> Iterator[None]:
    """The client's errors as ours: it has one class a status, and its library for HTTP changed twice."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionDenied(
            f"{what} is gated: accept its terms at {hub.endpoint}, with the account of this token"
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise NotFound(
            f"there is no {what} at {hub.endpoint}: no such revision, or no such file in it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        whose = "this token (HF_TOKEN) may not read it" if hub.token else "it needs a token (HF_TOKEN)"
        raise NotFound(f"there is no {what} at {hub.endpoint}, or {whose}") from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code == _WHO:
            raise Unauthenticated(f"{hub.endpoint} does not know this token (HF_TOKEN)") from error
        raise Unavailable(f"{hub.endpoint} does not answer about {what}: {error}") from error
    except _of_the_network() as error:
        raise Unavailable(f"{hub.endpoint} does not answer about {what}: {error}") from error


def _of_the_network() -> tuple[type[Exception], ...]:
    """What the loaded HTTP library raises for a connection that fails; that of `requests` is an OSError."""
    loaded = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return (OSError, *(module.TransportError for module in loaded if module))
