"""Addresses of the Hub that are not served: the error states this, instead of reporting a missing
repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptry_api.testing import Server
from adaptry_cli.main import main

from .clients import run_client
from .pushed import TONE, create, files_of, put


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/nothing"),
        ("POST", "/api/models/acme/tone/likers"),
        ("PUT", "/api/whoami-v2"),
        ("GET", "/api/daily_papers"),
        ("GET", "/api/collections/acme/x-1"),
        ("HEAD", "/api/telemetry/x"),
        ("GET", "/acme/tone/blob/main/README.md"),
        ("GET", "/api/datasets"),
    ],
)
@pytest.mark.parametrize("token", ["admin", None])
def test_an_unknown_address_is_reported_without_an_error_code(
    server: Server, method: str, path: str, token: str | None
) -> None:
    create(server)
    answer = server.call(method, path, token=token)
    assert answer.status in (404, 405)
    assert "X-Error-Code" not in answer.headers
    assert "adapters and their base models" in answer.headers["X-Error-Message"]
    assert method == "HEAD" or answer.json["error"] == answer.headers["X-Error-Message"]


@pytest.mark.parametrize(
    "path", ["/api/datasets/acme/x", "/datasets/acme/x/resolve/main/a.csv", "/api/spaces/acme/x"]
)
def test_a_repository_of_another_kind_is_not_found_and_the_error_names_the_kind(
    server: Server, path: str
) -> None:
    answer = server.call("GET", path)
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert "There are no" in answer.headers["X-Error-Message"]


def test_a_hostile_address_is_not_echoed_into_a_header(server: Server) -> None:
    answer = server.call("GET", "/api/%0d%0aSet-Cookie:x" + "y" * 500)
    assert answer.status == 404
    assert "Set-Cookie" not in answer.headers
    assert len(answer.headers["X-Error-Message"]) < 500


def test_our_own_routes_keep_their_error_format(server: Server) -> None:
    answer = server.call("GET", "/api/v1/nothing")
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert "X-Error-Code" not in answer.headers


def test_real_clients_show_the_sentence(server: Server, tmp_path: Path) -> None:
    code = """
answer = [
    said(HfHubHTTPError, lambda: list(api.list_daily_papers())),
    said(HfHubHTTPError, lambda: api.list_repo_likers("acme/tone").__next__()),
    said(HfHubHTTPError, lambda: hf_hub_download("acme/x", "a.csv", repo_type="dataset")),
    said(HfHubHTTPError, lambda: snapshot_download("acme/x", repo_type="dataset")),
    said(HfHubHTTPError, lambda: api.space_info("acme/x")),
    said(HfHubHTTPError, lambda: list(api.list_datasets())),
]
"""
    texts, _ = run_client(server, code, tmp_path)
    for text in texts:
        assert "it stores adapters and their base models" in text
    assert "There are no datasets" in texts[2]
    assert TONE in texts[1]


def test_a_refused_duplicate_shows_the_command_that_copies(server: Server, tmp_path: Path) -> None:
    create(server)
    put(server, files_of(tmp_path / "tone"))
    code = 'answer = said(HfHubHTTPError, lambda: api.duplicate_repo("acme/tone", "acme/copy"))'
    answer, _ = run_client(server, code, tmp_path)
    assert "`adaptry copy acme/tone NAMESPACE/NAME`" in answer
    done = CliRunner().invoke(main, ["copy", "acme/tone", "acme/copy", "--registry", str(server.data)])
    assert done.exit_code == 0, done.output
    assert server.call("GET", "/api/models/acme/copy").status == 200


def test_requests_with_an_alternative_here_show_it(server: Server, tmp_path: Path) -> None:
    create(server)
    code = """
answer = [
    said(HfHubHTTPError, lambda: api.get_discussion_details("acme/tone", 1)),
    said(HfHubHTTPError, lambda: api.merge_pull_request("acme/tone", 1)),
    said(HfHubHTTPError, lambda: list(api.list_pending_access_requests("acme/tone"))),
    said(HfHubHTTPError, lambda: api.grant_access("acme/tone", "bob")),
    said(HfHubHTTPError, lambda: api.list_webhooks()),
]
"""
    texts, _ = run_client(server, code, tmp_path)
    alternatives = ["create_branch"] * 2 + ["`adaptry grant add USER viewer acme/tone`"] * 2
    for text, alternative in zip(texts, [*alternatives, "`adaptry webhook add NAMESPACE URL`"], strict=True):
        assert alternative in text
        assert "unset HF_ENDPOINT" not in text
    server.token("bob", "reader", ("elsewhere",))
    grant = ["grant", "add", "bob", "viewer", "acme/tone", "--data", str(server.data)]
    done = CliRunner().invoke(main, grant)
    assert done.exit_code == 0, done.output


def test_an_upload_to_a_name_that_is_not_a_branch_suggests_only_working_commands(
    server: Server, tmp_path: Path
) -> None:
    create(server)
    put(server, files_of(tmp_path / "tone"))
    code = """
api.create_tag("acme/tone", tag="good")
names = ["refs/pr/1", "v1", "good", api.model_info("acme/tone").sha, "drafts"]
def upload(revision):
    api.upload_file(
        repo_id="acme/tone", path_in_repo="README.md", path_or_fileobj=b"# Tone", revision=revision
    )
def squash(branch):
    api.super_squash_history("acme/tone", branch=branch)
answer = [said(RevisionNotFoundError, lambda: call(name)) for call in (upload, squash) for name in names]
api.create_branch("acme/tone", branch="drafts")
upload("drafts")
"""
    texts, _ = run_client(server, code, tmp_path)
    for pull_request, version, tag, commit, absent in (texts[:5], texts[5:]):
        assert "no pull requests; commit to main or to another branch" in pull_request
        assert "no branch can have that name; commit to main" in version
        assert "it is a tag, which takes no commits" in tag
        assert "no branch can have that name; commit to main" in commit
        assert "create the branch, then commit to it" in absent


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
@pytest.mark.parametrize("name", [TONE, f"{TONE}.git", "acme/none"])
@pytest.mark.parametrize("command", ["clone", "push"])
def test_git_shows_how_to_download_and_upload(
    server: Server, tmp_path: Path, command: str, name: str
) -> None:
    create(server)
    url = server.url.replace("://", f"://admin:{server.admin}@") + f"/{name}"
    shutil.copytree(_repository(tmp_path), tmp_path / "here")
    words = ["clone", url, "there"] if command == "clone" else ["-C", "here", "push", url, "HEAD:main"]
    done = _git(tmp_path, *words)
    assert done.returncode != 0
    assert "not a git server" in done.stderr
    assert f"hf download {name.removesuffix('.git')}" in done.stderr
    assert "not found" not in done.stderr


def _repository(folder: Path) -> Path:
    _git(folder, "init", "--quiet", "made")
    _git(folder, "-C", "made", "commit", "--quiet", "--allow-empty", "--message", "one")
    return folder / "made"


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    who = {
        f"GIT_{role}_{what}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    alone = {"HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    return subprocess.run(
        ["git", *words], cwd=folder, env=os.environ | who | alone, capture_output=True, text=True, check=False
    )
