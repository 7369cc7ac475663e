"""The CI job described by the claims of an ID token, and the publisher that it belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from adaptry.core.access.ci_jobs import CiJob, PublisherRule, read_job
from adaptry.core.errors import Invalid

GITHUB: dict[str, Any] = {
    "event_name": "push",
    "repository": "acme/train",
    "repository_id": "1001",
    "repository_owner_id": "77",
    "ref": "refs/heads/main",
    "workflow_ref": "acme/train/.github/workflows/release.yml@refs/heads/main",
}
GITLAB: dict[str, Any] = {
    "pipeline_source": "push",
    "project_path": "acme/models/train",
    "project_id": "2002",
    "namespace_id": "88",
    "ref": "main",
    "ref_path": "refs/heads/main",
    "ci_config_ref_uri": "gitlab.com/acme/models/train//.gitlab-ci.yml@refs/heads/main",
}


def test_a_github_job_is_known_by_numbers_workflow_and_branch() -> None:
    job = read_job("github", GITHUB | {"environment": "release"})
    assert job == CiJob("1001", "77", ".github/workflows/release.yml", "release", "main")


def test_a_gitlab_job_is_known_by_numbers_configuration_and_branch() -> None:
    assert read_job("gitlab", GITLAB) == CiJob("2002", "88", ".gitlab-ci.yml", None, "main")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pipeline_source": "merge_request_event"}, "may not publish"),
        ({"pipeline_source": "external_pull_request_event"}, "may not publish"),
        ({"pipeline_source": None}, "no claim pipeline_source"),
        ({"ci_config_ref_uri": None}, "no claim ci_config_ref_uri"),
        (
            {"ci_config_ref_uri": "gitlab.com/evil/train//.gitlab-ci.yml@refs/heads/main"},
            "not in its project",
        ),
        ({"ci_config_ref_uri": "gitlab.com/acme/models/train//a.yml@refs/heads/dev"}, "not in its project"),
        ({"ci_config_ref_uri": "https://evil.example/a.yml"}, "not in its project"),
        ({"namespace_id": "x"}, "not a number"),
        ({"project_id": 2002}, "no claim project_id"),
        ({"ref_path": None}, "no claim ref_path"),
    ],
)
def test_a_gitlab_job_that_may_run_foreign_code_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        read_job("gitlab", GITLAB | changes)


def test_a_tag_with_the_name_of_a_branch_is_not_a_branch() -> None:
    tag = "refs/tags/main"
    of_github = GITHUB | {"ref": tag, "workflow_ref": GITHUB["workflow_ref"].replace("refs/heads/main", tag)}
    of_gitlab = GITLAB | {"ref_path": tag, "ci_config_ref_uri": f"gitlab.com/acme/models/train//a.yml@{tag}"}
    assert read_job("github", of_github).branch is None
    assert read_job("gitlab", of_gitlab).branch is None


def test_a_rule_matches_exactly_what_it_names() -> None:
    job = CiJob("1", "2", "w.yml", "release", "main")
    assert PublisherRule("1", "2", "w.yml", "release", "main").matches(job)
    assert PublisherRule("1", "2", "w.yml", branch="main").matches(job)
    assert PublisherRule("1", "2", "w.yml", environment="release").matches(job)
    for other in (
        PublisherRule("9", "2", "w.yml", "release", "main"),
        PublisherRule("1", "9", "w.yml", "release", "main"),
        PublisherRule("1", "2", "W.yml", "release", "main"),
        PublisherRule("1", "2", "w.yml", "Release", "main"),
        PublisherRule("1", "2", "w.yml", "release", "mai"),
    ):
        assert not other.matches(job)
    assert not PublisherRule("1", "2", "w.yml", environment="release").matches(
        CiJob("1", "2", "w.yml", None, "main")
    )
