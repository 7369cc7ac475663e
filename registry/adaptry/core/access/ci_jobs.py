"""CI jobs: reads the job from the claims of an ID token, and finds its publisher.

Only claims that cannot pass to others are trusted: the numbers of a repository and of its owner, never their
names, which others may register after a rename. Jobs that run code from outside the repository, with the
rights of the repository, are refused altogether.

Sources: GitHub, "OpenID Connect reference"; GitLab, "ID token authentication".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

IssuerKind = Literal["github", "gitlab"]
Claims = Mapping[str, object]

_BRANCH = "refs/heads/"
_WORKFLOWS = ".github/workflows/"
_GITHUB_REFUSED = frozenset({"pull_request_target", "workflow_run"})
_GITLAB_REFUSED = frozenset({"merge_request_event", "external_pull_request_event"})


@dataclass(frozen=True, slots=True)
class CiJob:
    """A job: the numbers of its project and of the project's owner, the file that defines it, and its
    environment and branch, if any.
    """

    project_id: str
    owner_id: str
    workflow: str
    environment: str | None
    branch: str | None

    def __str__(self) -> str:
        parts = {
            "project id": self.project_id,
            "owner id": self.owner_id,
            "workflow": self.workflow,
            "environment": self.environment or "none",
            "branch": self.branch or "none",
        }
        return ", ".join(f"{name} {value}" for name, value in parts.items())


@dataclass(frozen=True, slots=True)
class PublisherRule:
    """Which jobs may publish. Of `environment` and `branch`, None allows any; one of them is given."""

    project_id: str
    owner_id: str
    workflow: str
    environment: str | None = None
    branch: str | None = None

    def matches(self, job: CiJob) -> bool:
        return (
            (job.project_id, job.owner_id, job.workflow) == (self.project_id, self.owner_id, self.workflow)
            and self.environment in (None, job.environment)
            and self.branch in (None, job.branch)
        )


def read_job(kind: IssuerKind, claims: Claims) -> CiJob:
    """The job that verified claims describe. Raises `Invalid` for missing claims and for refused triggers."""
    return ISSUER_KINDS[kind](claims)


def _github(claims: Claims) -> CiJob:
    _refuse(claims, "event_name", _GITHUB_REFUSED)
    repository, ref = _text(claims, "repository"), _text(claims, "ref")
    place = _text(claims, "workflow_ref")
    if not (place.startswith(f"{repository}/{_WORKFLOWS}") and place.endswith(f"@{ref}")):
        raise Invalid(f"the job's workflow {place[:200]!a} is not one of its repository {repository[:100]!a}")
    return CiJob(
        _number(claims, "repository_id"),
        _number(claims, "repository_owner_id"),
        place.removeprefix(f"{repository}/").removesuffix(f"@{ref}"),
        _optional(claims, "environment"),
        _branch(ref),
    )


def _gitlab(claims: Claims) -> CiJob:
    _refuse(claims, "pipeline_source", _GITLAB_REFUSED)
    project, ref = _text(claims, "project_path"), _text(claims, "ref_path")
    place = _text(claims, "ci_config_ref_uri")
    before, _, path = place.partition("//")
    if not (before.endswith(f"/{project}") and path.endswith(f"@{ref}")):
        raise Invalid(f"the job's configuration {place[:200]!a} is not in its project {project[:100]!a}")
    return CiJob(
        _number(claims, "project_id"),
        _number(claims, "namespace_id"),
        path.removesuffix(f"@{ref}"),
        _optional(claims, "environment"),
        _branch(ref),
    )


ISSUER_KINDS: Mapping[IssuerKind, Callable[[Claims], CiJob]] = {"github": _github, "gitlab": _gitlab}


def _refuse(claims: Claims, trigger: str, refused: frozenset[str]) -> None:
    found = _text(claims, trigger)
    if found in refused:
        raise Invalid(
            f"jobs that {found} starts may not publish: they can run code that outsiders propose; use"
            " push, release or workflow_dispatch"
        )


def _text(claims: Claims, name: str) -> str:
    found = claims.get(name)
    if not isinstance(found, str) or not found:
        raise Invalid(f"the ID token has no claim {name}")
    return found


def _optional(claims: Claims, name: str) -> str | None:
    found = claims.get(name)
    return found if isinstance(found, str) and found else None


def _number(claims: Claims, name: str) -> str:
    """A number; providers send it as text."""
    found = _text(claims, name)
    if not (found.isascii() and found.isdigit()):
        raise Invalid(f"the claim {name} of the ID token is not a number")
    return found


def _branch(ref: str) -> str | None:
    return ref.removeprefix(_BRANCH) if ref.startswith(_BRANCH) else None
