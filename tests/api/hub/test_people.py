"""Users, organisations, their repositories and the large files of a repository, as the real client requests
them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adaptry_api.testing import Server

from .clients import run_client
from .pushed import TONE, WEIGHTS, create, files_of, put


@pytest.fixture
def files(server: Server, tmp_path: Path) -> dict[str, bytes]:
    """An adapter of acme, and a private one of another namespace."""
    made = files_of(tmp_path / "tone")
    for name in (TONE, "secret/tone"):
        create(server, name)
        put(server, made, name=name)
    return made


def test_overviews_show_only_what_the_caller_may_read(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    token = server.token("acme", "writer", ("acme", "lab"))
    code = """
me, lab = api.get_user_overview("acme"), api.get_organization_overview("lab")
answer = [me.username, me.num_models, [org.name for org in me.orgs], lab.name, lab.num_models]
answer += [said(HfHubHTTPError, lambda: api.get_organization_overview("secret"))]
answer += [said(HfHubHTTPError, lambda: api.get_user_overview("nobody"))]
"""
    answer, _ = run_client(server, code, tmp_path, token)
    assert answer[:5] == ["acme", 1, ["lab"], "lab", 0]
    assert "no namespace 'secret'" in answer[5]
    assert "no namespace 'nobody'" in answer[6]


def test_hf_repos_list_shows_repositories_with_their_sizes(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    token = server.token("acme", "reader", ("acme",))
    total = sum(map(len, files.values()))
    code = """
answer = [[repo.id, repo.type, repo.visibility, repo.storage, repo.storage_percent] \
for repo in api.list_user_repos()]
answer += [[repo.id for repo in api.list_user_repos(namespace="acme")]]
"""
    answer, _ = run_client(server, code, tmp_path, token)
    assert answer == [[TONE, "model", "private", total, 100], [TONE]]
    done = subprocess.run(
        [Path(sys.executable).parent / "hf", "repos", "list", "--token", token],
        env={"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "PATH": "", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert TONE in done.stdout
    assert "secret" not in done.stdout


def test_large_files_are_listed_once_each_and_not_deleted_one_by_one(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    put(server, files_of(tmp_path / "next", seed=2))
    code = """
files = list(api.list_lfs_files("acme/tone"))
answer = [[file.filename, file.size, file.file_oid, file.ref] for file in files]
answer += [said(HfHubHTTPError, lambda: api.permanently_delete_lfs_files("acme/tone", files))]
"""
    answer, _ = run_client(server, code, tmp_path)
    assert [each[0] for each in answer[:2]] == [WEIGHTS, WEIGHTS]
    assert answer[0][2] != answer[1][2]
    assert {each[1] for each in answer[:2]} == {len(files[WEIGHTS])}
    assert "cannot be deleted" in answer[2]
