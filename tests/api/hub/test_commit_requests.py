"""Uploads over the Hub protocol: which files are stored, left out or refused, and with which messages."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.registry.access import TokenRequest
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.testing import RawResponse, Server
from adaptry_cli.main import main

from .pushed import CARD, CONFIG, README, TONE, WEIGHTS, create, deleted, files_of, lines, put, send

NAME = AdapterName.parse(TONE)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return files_of(tmp_path / "tone") | {README: CARD}


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    create(server)


def preupload(
    server: Server, *sizes: tuple[str, int], revision: str = "main", token: str = "admin", **more: Any
) -> RawResponse:
    body = {"files": [{"path": path, "size": size, "sample": ""} for path, size in sizes], **more}
    return server.call("POST", f"/api/models/{TONE}/preupload/{revision}", body, token=token)


def test_a_commit_of_an_adapter_is_a_version_with_its_cards_tags_and_metrics(
    server: Server, files: dict[str, bytes]
) -> None:
    index = b"model-index:\n- results:\n  - metrics: [{type: accuracy, value: 0.5}]\n"
    card = CARD.replace(b"license", index + b"description: Warm.\nlicense", 1)
    answer = send(server, lines({**files, README: card}))
    assert answer.json["commitUrl"] == f"{server.url}/{TONE}/commit/{answer.json['commitOid']}"
    version = server.registry().versions.get(Ref(NAME, Number(1)))
    assert version.digest.short_id == answer.json["commitOid"]
    assert version.metrics == {"accuracy": 0.5}
    info = server.registry().adapters.get(NAME)
    assert (info.tags, info.description) == (("warm", "license:mit"), "Warm.")
    assert "base_unknown" in answer.headers["X-HF-Warning"]


def test_an_upload_trained_on_a_folder_is_bound_to_its_base_by_the_command_in_the_warning(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    config = json.loads(files[CONFIG]) | {"base_model_name_or_path": "/data/llama"}
    answer = send(server, lines({**files, CONFIG: json.dumps(config).encode(), README: b"# Tone\n"}))
    warning = re.search(r"adaptry (base bind [^ ]+) BASE", answer.headers["X-HF-Warning"])
    assert warning, answer.headers["X-HF-Warning"]
    base = tiny_base(tmp_path / "base")
    there = ("--registry", server.url)
    environ = {"ADAPTRY_TOKEN": server.admin}
    for command in (["base", "add", str(base), "--name", "org/tiny"], [*warning[1].split(), "org/tiny"]):
        done = CliRunner(env=environ).invoke(main, [*command, *there])
        assert done.exit_code == 0, done.output
    version = server.registry().versions.get(Ref(NAME, Number(1)))
    assert (version.base_status, version.base_name) == ("verified", "org/tiny")
    assert version.digest.short_id == answer.json["commitOid"]


def test_a_card_alone_creates_no_version_and_replaces_its_old_tags(
    server: Server, files: dict[str, bytes]
) -> None:
    first = put(server, files)
    server.call("PATCH", f"/api/v1/adapters/{TONE}", {"tags": ["warm", "license:mit", "ours"]})
    second = put(server, {README: CARD.replace(b"warm", b"cold")})
    assert second != first
    info = server.registry().adapters.get(NAME)
    assert (info.versions, info.tags) == (1, ("ours", "cold", "license:mit"))


def test_metrics_of_a_later_card_are_logged_for_the_existing_version(
    server: Server, files: dict[str, bytes]
) -> None:
    put(server, files)
    index = b"model-index:\n- results:\n  - metrics: [{type: accuracy, value: 0.75}]\n"
    card = CARD.replace(b"license", index + b"license", 1)
    put(server, {README: card})
    assert server.registry().versions.get(Ref(NAME, Number(1))).metrics == {"accuracy": 0.75}
    server.registry().metrics.log(Ref(NAME, Number(1)), {"accuracy": 0.8})
    put(server, {README: card + b"Once more.\n"})
    assert server.registry().versions.get(Ref(NAME, Number(1))).metrics == {"accuracy": 0.8}


def test_all_metrics_of_a_card_with_hundreds_are_logged_until_the_version_has_the_maximum(
    server: Server, files: dict[str, bytes]
) -> None:
    """Cards of embedding models have hundreds of results."""

    def card(count: int) -> bytes:
        results = ", ".join(f"{{type: task-{at}, value: {at}}}" for at in range(count))
        return CARD.replace(
            b"license", f"model-index:\n- results:\n  - metrics: [{results}]\nlicense".encode(), 1
        )

    put(server, {**files, README: card(150)})
    assert len(server.registry().versions.get(Ref(NAME, Number(1))).metrics) == 150
    answer = send(server, lines({README: card(1200)}))
    assert answer.status == 200, answer.json
    warning = answer.headers["X-HF-Warning"]
    assert re.search(r"not logged \(task-\d+(, task-\d+){4}, .*\): .* at most 1,024 metrics", warning), (
        warning
    )


def test_a_commit_by_a_caller_who_may_only_push_leaves_out_the_cards_metrics_with_a_warning(
    server: Server, files: dict[str, bytes]
) -> None:
    """CI jobs publish with such tokens."""
    limits = TokenRequest(name="ci", principal="root", permissions=("push",), resources=("acme",))
    token = server.registry().tokens.create(limits).secret
    index = b"model-index:\n- results:\n  - metrics: [{type: accuracy, value: 0.5}]\n"
    body = lines({**files, README: CARD.replace(b"license", index + b"license", 1)})

    answer = send(server, body, token=token)

    assert answer.status == 200, answer.json
    assert "metrics of the README were not logged (accuracy)" in answer.headers["X-HF-Warning"]
    assert server.registry().versions.get(Ref(NAME, Number(1))).metrics == {}
    assert send(server, body).status == 200
    assert server.registry().versions.get(Ref(NAME, Number(1))).metrics == {"accuracy": 0.5}


def test_repeating_a_commit_returns_the_same_commit(server: Server, files: dict[str, bytes]) -> None:
    assert put(server, files) == put(server, files)
    assert len(server.call("GET", f"/api/models/{TONE}/commits/main").json) == 2  # and the empty file


def test_config_and_weights_in_two_commits_make_a_version_with_the_second(
    server: Server, files: dict[str, bytes]
) -> None:
    put(server, {CONFIG: files[CONFIG]})
    assert server.registry().adapters.get(NAME).versions == 0
    put(server, {WEIGHTS: files[WEIGHTS]})
    assert server.registry().adapters.get(NAME).versions == 1


def test_preupload_returns_how_to_send_each_file_and_which_exist(
    server: Server, files: dict[str, bytes]
) -> None:
    """The response has no id for an adapter's own files, so that each commit has them."""
    put(server, files | {"tokenizer.model": b"\0tokens"})
    answer = preupload(
        server, (WEIGHTS, 10), (CONFIG, 9), (README, 10), ("vocab.txt", 5 << 20), ("tokenizer.model", 7)
    )
    assert [(file["path"], file["uploadMode"], file["shouldIgnore"]) for file in answer.json["files"]] == [
        (WEIGHTS, "lfs", False),
        (CONFIG, "regular", False),
        (README, "regular", False),
        ("vocab.txt", "lfs", False),
        ("tokenizer.model", "lfs", False),
    ]
    git = hashlib.sha1(b"blob %d\0" % len(CARD) + CARD, usedforsecurity=False).hexdigest()
    oids = [file.get("oid") for file in answer.json["files"]]
    assert oids == [None, None, git, None, hashlib.sha256(b"\0tokens").hexdigest()]


def test_files_that_are_not_part_of_an_adapter_are_left_out_with_a_warning(server: Server) -> None:
    unwanted = [
        "training_args.bin",
        "optimizer.pt",
        "runs/a/events",
        "config.json",
        ".gitattributes",
        "x.tmp",
    ]
    answer = preupload(server, *((path, 5) for path in unwanted), (README, 5), gitIgnore="*.tmp\n")
    assert [file["path"] for file in answer.json["files"] if file["shouldIgnore"]] == unwanted
    warnings = " ".join(answer.headers.getlist("X-HF-Warning"))
    for path in ("training_args.bin", "optimizer.pt", "runs/a/events", "config.json"):
        assert path in warnings
    assert "gitattributes" not in warnings
    assert "x.tmp" not in warnings


@pytest.mark.parametrize(
    "path", ["..\\ddd", "a\\..\\b", "../x", "a/../../x", "/etc/x", "\\\\host\\x", "C:\\x", "c:x"]
)
def test_a_path_that_leads_out_of_its_folder_is_refused_before_its_bytes_arrive(
    server: Server, path: str
) -> None:
    answer = preupload(server, (README, 5), (path, 5))
    assert answer.status == 422
    assert "not an allowed file name" in answer.json["error"]
    assert send(server, lines({README: b"x", path: b"x"})).status == 422


def test_names_that_do_not_fit_into_a_header_are_handled(server: Server) -> None:
    answer = preupload(server, ("évil\r\nSet-Cookie: x\x00.bin", 5), (README, 5))
    assert answer.headers["X-HF-Warning"].count("?") == 2
    assert "Set-Cookie" not in answer.headers
    refused = send(server, lines({"a\r\nSet-Cookie: x\x01": b"x"}))
    assert refused.status == 422
    assert "Set-Cookie" not in refused.headers


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("model.safetensors", "whole model"),
        ("model-00001-of-00002.safetensors", "adaptry base add"),
        ("pytorch_model.bin", "whole model"),
        ("pytorch_model-00001-of-00002.bin", "whole model"),
        ("adapter_model.bin", "convert it once"),
        ("pytorch_lora_weights.bin", "save_lora_weights"),
    ],
)
def test_an_upload_that_would_store_less_than_intended_is_refused(
    server: Server, path: str, words: str
) -> None:
    answer = preupload(server, (path, 10), (CONFIG, 10))
    assert answer.status == 400
    assert words in answer.json["error"]


@pytest.mark.parametrize("pickle", ["adapter_model.bin", "pytorch_model.bin"])
def test_a_pickle_beside_an_adapters_weights_is_only_left_out(server: Server, pickle: str) -> None:
    answer = preupload(server, (pickle, 10), (WEIGHTS, 10), (CONFIG, 10))
    assert [file["shouldIgnore"] for file in answer.json["files"]] == [True, False, False]


def test_an_adapter_that_cannot_work_is_refused_with_the_fault(server: Server, tmp_path: Path) -> None:
    broken = files_of(tmp_path / "x")
    broken[CONFIG] = broken[CONFIG].replace(b'"r": 4', b'"r": 8')
    answer = send(server, lines(broken))
    assert answer.status == 400
    assert "rank" in answer.json["error"]
    assert server.registry().adapters.get(NAME).versions == 0
    assert server.call("GET", f"/api/models/{TONE}").json["siblings"] == []


@pytest.mark.parametrize("branch", ["main", "run.step-1"])
def test_weights_with_nan_are_refused_with_a_sentence(server: Server, tmp_path: Path, branch: str) -> None:
    nan = ("F32", (16, 4), b"\x00\x00\xc0\x7f" * 64)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    spoiled = {path.name: path.read_bytes() for path in tiny_lora(tmp_path / "x", extra={key: nan}).iterdir()}
    if branch != "main":
        server.registry().commits.create_branch(NAME, branch)
    answer = send(server, lines(spoiled), branch)
    assert answer.status == 400
    assert "NaN in 1 tensor" in answer.json["error"]
    assert server.registry().adapters.get(NAME).versions == 0
    assert server.call("GET", f"/api/models/{TONE}").json["siblings"] == []


def test_an_alias_is_a_branch_that_only_moving_it_changes(server: Server, files: dict[str, bytes]) -> None:
    put(server, files)
    digest = server.registry().versions.get(Ref(NAME, Number(1))).digest
    server.registry().aliases.move(NAME, "prod", digest, None)
    for answer in (
        preupload(server, (README, 1), revision="prod"),
        send(server, lines({README: b"x"}), "prod"),
    ):
        assert answer.status == 403
        assert "adaptry alias set" in answer.headers["X-Error-Message"]


@pytest.mark.parametrize("revision", ["nowhere", "v1", "refs%2Fpr%2F1"])
def test_commits_go_to_branches(server: Server, files: dict[str, bytes], revision: str) -> None:
    commit = put(server, files)
    for word in (revision, commit):
        answer = send(server, lines({README: b"x"}), word)
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_a_reader_cannot_change_anything(server: Server, files: dict[str, bytes]) -> None:
    put(server, files)
    reader = server.token("rita", "reader", ("acme",))
    at = f"/api/models/{TONE}"
    for method, path, body in (
        ("POST", f"{at}/preupload/main", {"files": [{"path": README, "size": 1}]}),
        ("POST", f"{at}/commit/main", lines({README: b"x"})),
        ("POST", f"{at}/tag/main", {"tag": "x"}),
        ("POST", f"{at}/branch/x", {}),
        ("PUT", f"{at}/settings", {"private": False}),
        ("POST", f"{at}/super-squash/main", {}),
        ("GET", f"{at}/auth-check/write", None),
        ("POST", "/api/repos/create", {"name": "new", "organization": "acme"}),
        ("POST", "/api/repos/move", {"fromRepo": TONE, "toRepo": "acme/x"}),
        ("DELETE", "/api/repos/delete", {"name": TONE}),
    ):
        answer = server.call(method, path, body, token=reader)
        assert answer.status == 403, (path, answer.body)
        assert "X-Error-Code" not in answer.headers
        stranger = server.token("eve", "writer", ("evil",))
        if "repos/create" not in path:
            assert server.call(method, path, body, token=stranger).status == 404, path


def test_a_commit_on_an_outdated_parent_is_412(server: Server, files: dict[str, bytes]) -> None:
    old = put(server, files)
    new = put(server, {README: b"# New\n"})
    stale = send(server, lines({README: b"# Mine\n"}, parent=old))
    assert stale.status == 412
    assert "refresh and try again" in stale.json["error"]
    assert send(server, lines({README: b"# Mine\n"}, parent=new[:8])).status == 200


def test_a_repeated_commit_gets_the_same_answer(server: Server, files: dict[str, bytes]) -> None:
    old = put(server, {**files, "merges.txt": b"x"})
    body = lines({README: b"# New\n"}, deleted("merges.txt"), parent=old)
    first, again = send(server, body), send(server, body)
    assert (first.status, again.status) == (200, 200)
    assert first.json["commitOid"] == again.json["commitOid"]
    other = lines({README: b"# New\n"}, deleted("merges.txt"), deleted(README), parent=old)
    assert send(server, other).status == 412
    assert len(server.call("GET", f"/api/models/{TONE}/commits/main").json) == 3


@pytest.mark.parametrize(
    ("config", "base"),
    [('"org/tiny"', "org/tiny"), ("null", "org/carded"), ('"/home/me/base"', "org/carded")],
)
def test_the_base_is_that_of_the_config_or_else_of_the_card(
    server: Server, files: dict[str, bytes], config: str, base: str
) -> None:
    files[CONFIG] = files[CONFIG].replace(b'"org/tiny"', config.encode())
    put(server, {README: CARD.replace(b"license", b"base_model: org/carded\nlicense", 1)})
    put(server, {CONFIG: files[CONFIG], WEIGHTS: files[WEIGHTS]})
    assert server.registry().versions.get(Ref(NAME, Number(1))).base_name == base
    assert f"base_model:adapter:{base}" in server.call("GET", f"/api/models/{TONE}").json["tags"]


def test_the_last_of_two_files_at_one_path_counts(server: Server, files: dict[str, bytes]) -> None:
    unnamed = files[CONFIG].replace(b'"org/tiny"', b"null")
    cards = [
        CARD.replace(b"license", b"base_model: org/" + word + b"\nlicense", 1) for word in (b"one", b"two")
    ]
    _, later = (json.loads(line) for line in lines({README: cards[1]}).splitlines())
    answer = send(server, lines({README: cards[0], CONFIG: unnamed, WEIGHTS: files[WEIGHTS]}, later))
    assert answer.status == 200, answer.body
    assert server.registry().versions.get(Ref(NAME, Number(1))).base_name == "org/two"


def test_files_and_folders_are_deleted(server: Server, files: dict[str, bytes]) -> None:
    put(server, {**files, "merges.txt": b"x"})
    assert send(server, lines({}, deleted("merges.txt"))).status == 200
    missing = send(server, lines({}, deleted("merges.txt")))
    assert (missing.status, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert missing.json["error"].startswith("A file with this name doesn't exist")
    server.call("POST", f"/api/models/{TONE}/branch/steps")
    put(server, {f"one/{CONFIG}": files[CONFIG]}, "steps")
    assert send(server, lines({}, deleted("one")), "steps").status == 200


def large(oid: str, path: str = WEIGHTS, **more: Any) -> dict[str, Any]:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, **more}}


def test_a_large_file_must_have_been_sent_to_this_adapter(server: Server, files: dict[str, bytes]) -> None:
    put(server, files)
    create(server, "acme/other")
    oid = hashlib.sha256(files[WEIGHTS]).hexdigest()
    answer = send(server, lines({}, large(oid, size=len(files[WEIGHTS]))), name="acme/other")
    assert answer.status == 400
    assert "was not uploaded" in answer.json["error"]
    wrong = send(server, lines({}, large(oid, size=3)))
    assert wrong.status == 400


def test_a_copied_file_has_no_size(server: Server, files: dict[str, bytes]) -> None:
    put(server, files)
    server.call("POST", f"/api/models/{TONE}/branch/steps")
    oid = hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert send(server, lines({}, large(oid, f"one/{WEIGHTS}")), "steps").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}\n",
        b"not json\n",
        b'{"key":"file","value":{"path":"README.md","content":"eA=="}}\n',
        b'{"key":"header","value":{"summary":"x"}}\n'
        b'{"key":"file","value":{"path":"README.md","content":"%%"}}\n',
        b'{"key":"header","value":{"summary":"x"}}\n{"key":"other","value":{}}\n',
        b'{"key":"header","value":{"summary":"x"}}\n{"key":"lfsFile","value":{"path":"a","oid":"../x"}}\n',
        b'{"key":"header","value":{"summary":"x","summary":"y"}}\n',
        b'{"key":"header","value":[]}\n',
    ],
)
def test_a_malformed_commit_is_refused_and_changes_nothing(server: Server, body: bytes) -> None:
    answer = send(server, body)
    assert answer.status == 400
    assert answer.json["error"]
    assert len(server.call("GET", f"/api/models/{TONE}/commits/main").json) == 1


@pytest.mark.parametrize(
    "path", ["../x", "a/../README.md", "/etc/passwd", "a\\b", "con", ".git/config", "a" * 300]
)
def test_a_malformed_path_is_422(server: Server, path: str) -> None:
    assert send(server, lines({path: b"x"})).status == 422


def test_a_program_under_a_harmless_name_is_refused(server: Server) -> None:
    answer = send(server, lines({README: b"\x7fELF\x02\x01\x01"}))
    assert answer.status == 400
    assert "a program" in answer.json["error"]


def test_an_incomplete_commit_changes_nothing(server: Server, files: dict[str, bytes]) -> None:
    body = lines(files)
    cut = body.rindex(b'{"key"')  # after a complete line, so that the received part would be a valid commit
    address = urlsplit(server.url)
    head = (
        f"POST /api/models/{TONE}/commit/main HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {server.admin}\r\nContent-Type: application/x-ndjson\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        connection.sendall(head.encode() + body[:cut])
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 " not in connection.recv(65536).split(b"\r\n")[0]
    assert len(server.call("GET", f"/api/models/{TONE}/commits/main").json) == 1


def test_a_file_too_large_for_a_commit_line_is_refused_with_the_alternative(server: Server) -> None:
    answer = send(server, lines({README: bytes(5 << 20)}))
    assert answer.status == 413
    assert "upload it as a large file" in answer.json["error"]


def test_pull_requests_are_refused_with_the_alternative(server: Server, files: dict[str, bytes]) -> None:
    put(server, files)
    at = f"/api/models/{TONE}"
    for answer in (
        server.call("POST", f"{at}/preupload/main?create_pr=1", {"files": []}),
        server.call("POST", f"{at}/commit/main?create_pr=1", lines({README: b"x"})),
        server.call("POST", f"{at}/discussions", {"title": "x", "pullRequest": True}),
    ):
        assert answer.status == 501
        assert "commit to a branch" in answer.json["error"]
    assert server.call("GET", f"{at}/discussions?p=0").json["discussions"] == []


def test_a_discussion_is_refused_without_mentioning_pull_requests(
    server: Server, files: dict[str, bytes]
) -> None:
    put(server, files)
    answer = server.call("POST", f"/api/models/{TONE}/discussions", {"title": "x", "pullRequest": False})
    assert (answer.status, "pull request" in answer.json["error"]) == (501, False)
    assert "no discussions" in answer.json["error"]


def test_weights_only_in_a_folder_are_refused_on_main_and_stored_on_a_branch(
    server: Server, files: dict[str, bytes]
) -> None:
    put(server, files)
    server.call("POST", f"/api/models/{TONE}/branch/drafts", {})

    def announce(branch: str, *paths: str, ignored: str = "") -> RawResponse:
        body = {"files": [{"path": path, "size": 3} for path in paths], "gitIgnore": ignored}
        return server.call("POST", f"/api/models/{TONE}/preupload/{branch}", body)

    named = (README, f"tone/{CONFIG}", f"tone/{WEIGHTS}")
    refused = announce("main", *named)
    assert refused.status == 400
    assert f"tone/{WEIGHTS} (in a folder" in refused.json["error"]
    assert "without the folder" in refused.json["error"]
    assert announce("drafts", *named).status == 200
    assert announce("main", *named, ignored="tone/").status == 200  # the uploader left them out
    assert announce("main", *named, CONFIG, WEIGHTS).status == 200  # beside an adapter: checkpoints


def test_a_broken_card_is_refused_before_anything_is_sent(server: Server) -> None:
    good = server.call("POST", "/api/validate-yaml", {"content": CARD.decode(), "repoType": "model"})
    assert (good.status, good.json) == (200, {"errors": [], "warnings": []})
    none = server.call("POST", "/api/validate-yaml", {"content": "# Tone"})
    assert (none.status, len(none.json["warnings"])) == (200, 1)
    broken = server.call("POST", "/api/validate-yaml", {"content": "---\na: [1\n---\n"})
    assert broken.status == 400
    assert "line" in broken.json["errors"][0]["message"]


@pytest.mark.parametrize("index", ["foo", "{name: tone}", "[foo]"])
def test_malformed_results_in_a_card_are_refused_before_the_upload(server: Server, index: str) -> None:
    asked = {"content": f"---\nmodel-index: {index}\n---\n# Tone\n", "repoType": "model"}
    answer = server.call("POST", "/api/validate-yaml", asked)
    assert (answer.status, answer.json["errors"][0]["message"].split(" is ")[0]) == (400, "model-index")


def test_pushes_and_commits_continue_from_each_other(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    from adaptry.adapters.adapter import open_dir
    from adaptry.operations.transfer import push

    put(server, files)
    push(server.registry(), open_dir(tiny_lora(tmp_path / "next", seed=7)), TONE)
    said = server.call("GET", f"/api/models/{TONE}").json
    assert README not in {found["rfilename"] for found in said["siblings"]}
    put(server, {README: CARD})
    assert server.registry().adapters.get(NAME).versions == 2
    assert len(server.call("GET", f"/api/models/{TONE}/commits/main").json) == 4


def test_concurrent_commits_may_add_the_same_new_file(server: Server) -> None:
    """Processes of one training run do this, each with its own branch."""
    for number in range(8):
        server.call("POST", f"/api/models/{TONE}/branch/run-{number}", {})
    body = lines({README: CARD * 2_000})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: send(server, body, f"run-{number}"), range(8)))
    assert [answer.status for answer in answers] == [200] * 8, [answer.body for answer in answers]
