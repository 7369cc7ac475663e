"""Trusted publishing with unmodified clients: `hf upload` and `adaptry push`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from tests.api.local_issuer import RELEASE, LocalIssuer, running_issuer

from adaptry.core.refs import AdapterName
from adaptry.registry.publishers import IssuerRequest, PublisherRequest
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

TONE = AdapterName.parse("acme/tone")
EXAMPLES = Path(__file__).parents[3] / "examples" / "ci"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def server(start: Callable[..., Server], issuer: LocalIssuer) -> Server:
    """A server that lets jobs of the issuer push to acme/tone, which does not exist yet."""
    server = start(allow_outgoing=("127.0.0.0/8",))
    roles = server.registry().publishers
    roles.add_issuer(IssuerRequest(name="github", url=issuer.url, kind="github", audience=server.url))
    rule = {"project_id": "1001", "owner_id": "77", "workflow": RELEASE, "branch": "main"}
    roles.add(TONE, PublisherRequest.model_validate({"issuer": "github"} | rule))
    return server


@contextmanager
def github_actions(issuer: LocalIssuer, secret: str) -> Iterator[str]:
    """Runs the part of GitHub Actions that issues ID tokens; yields the address that a job gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (audience,) = parse_qs(urlsplit(self.path).query)["audience"]
            is_job = self.headers["Authorization"] == f"Bearer {secret}"
            body = json.dumps({"value": issuer.token(aud=audience)} if is_job else {}).encode()
            self.send_response(200 if is_job else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as actions:
        thread = threading.Thread(target=actions.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{actions.server_port}/token?api-version=2.0"
        actions.shutdown()
        thread.join()


def run(
    program: str, *arguments: str, home: Path, fails: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ADAPTRY_"))}
    environment = kept | {"HF_HOME": str(home / "hf"), "ADAPTRY_HOME": str(home / "adaptry"), "NO_COLOR": "1"}
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done


def test_hf_upload_in_github_actions_pushes_without_a_secret(
    server: Server, issuer: LocalIssuer, tmp_path: Path
) -> None:
    folder = tiny_lora(tmp_path / "tone")
    with github_actions(issuer, "of-this-job") as address:
        run(
            *("hf", "upload", "acme/tone", str(folder), "--private"),
            home=tmp_path,
            HF_ENDPOINT=server.url,
            HF_OIDC_RESOURCE="acme/tone",
            GITHUB_ACTIONS="true",
            ACTIONS_ID_TOKEN_REQUEST_URL=address.partition("?")[0],
            ACTIONS_ID_TOKEN_REQUEST_TOKEN="of-this-job",
        )
    assert server.registry().version("acme/tone").created_by == "acme/publisher-1"


def test_hf_upload_shows_why_a_job_is_refused(server: Server, issuer: LocalIssuer, tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path / "tone")
    refused = run(
        *("hf", "upload", "acme/tone", str(folder)),
        home=tmp_path,
        fails=True,
        HF_ENDPOINT=server.url,
        HF_OIDC_RESOURCE="acme/tone",
        HF_OIDC_ID_TOKEN=issuer.token(aud=server.url, event_name="pull_request_target"),
    )
    assert "pull_request_target starts may not publish" in refused.stderr + refused.stdout


def test_adaptry_push_after_a_login_with_the_jobs_token(
    server: Server, issuer: LocalIssuer, tmp_path: Path
) -> None:
    folder = tiny_lora(tmp_path / "tone")
    with github_actions(issuer, "of-this-job") as address:
        job = {"ACTIONS_ID_TOKEN_REQUEST_URL": address, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-this-job"}
        logged_in = run("adaptry", "login", server.url, "--publish", "acme/tone", home=tmp_path, **job)
    assert logged_in.stdout.strip() == "acme/publisher-1"
    run("adaptry", "push", str(folder), "acme/tone", home=tmp_path, ADAPTRY_URL=server.url)
    assert server.registry().version("acme/tone").created_by == "acme/publisher-1"
    other = run(
        "adaptry", "push", str(folder), "acme/other", home=tmp_path, fails=True, ADAPTRY_URL=server.url
    )
    assert "acme/publisher-1 may not change acme/other" in other.stderr


def test_login_in_a_ci_job_reports_missing_settings(
    server: Server, issuer: LocalIssuer, tmp_path: Path
) -> None:
    outside = run("adaptry", "login", server.url, "--publish", "acme/tone", home=tmp_path, fails=True)
    assert "permissions: id-token: write" in outside.stderr
    wrong = issuer.token(aud="https://elsewhere.example")
    refused = run(
        *("adaptry", "login", server.url, "--publish", "acme/tone"),
        home=tmp_path,
        fails=True,
        ADAPTRY_ID_TOKEN=wrong,
    )
    assert "is for 'https://elsewhere.example', but it must be for" in refused.stderr


def test_the_example_for_github_actions_pushes(server: Server, issuer: LocalIssuer, tmp_path: Path) -> None:
    """The example's own shell commands run, with the variables that the host sets."""
    file = yaml.safe_load((EXAMPLES / "github.yml").read_text())
    (job,) = file["jobs"].values()
    assert file["permissions"]["id-token"] == "write"
    (step,) = [one for one in job["steps"] if one.get("name") == "Push"]
    with github_actions(issuer, "of-this-job") as address:
        variables = file["env"] | {
            "ADAPTRY_URL": server.url,
            "ACTIONS_ID_TOKEN_REQUEST_URL": address,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-this-job",
        }
        run_script(step["run"], tmp_path, variables)
    assert server.registry().version(file["env"]["ADAPTER"]).created_by == "acme/publisher-1"


def test_the_example_for_gitlab_pushes(server: Server, issuer: LocalIssuer, tmp_path: Path) -> None:
    file = yaml.safe_load((EXAMPLES / "gitlab.yml").read_text())
    (variable,) = file["push"]["id_tokens"]
    assert file["push"]["id_tokens"][variable]["aud"] == file["variables"]["ADAPTRY_URL"]
    variables = file["variables"] | {"ADAPTRY_URL": server.url, variable: issuer.token(aud=server.url)}
    run_script("\n".join(file["push"]["script"]), tmp_path, variables)
    assert server.registry().version(file["variables"]["ADAPTER"]).created_by == "acme/publisher-1"


def run_script(script: str, folder: Path, variables: dict[str, str]) -> None:
    """Runs a job's commands in a folder with a trained adapter, `out`."""
    tiny_lora(folder / "out")
    environment = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "ADAPTRY_HOME": str(folder / "home")}
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
