"""The dataset repositories to which lm-eval pushes results, with the calls that it makes through the real
client.
"""

from __future__ import annotations

import json
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.testing.contract.inbox import DOCUMENTS, TIME, lm_eval_results
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import RawResponse, Server

from .clients import run_client
from .pushed import TONE, lines

INBOX = "acme/lm-eval-results-private"
PUSH = """
api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
api.upload_file(path_or_fileobj=folder + "/results_" + time + ".json", repo_id=repo, repo_type="dataset",
                path_in_repo=model + "/results_" + time + ".json")
flat = model.replace("/", "__")
for _ in range(2):
    api.upload_folder(folder_path=folder, path_in_repo=flat, repo_id=repo, repo_type="dataset")
listed = sorted(api.list_repo_files(repo, repo_type="dataset"))
results = [path for path in listed if "/results_" in path]
read = json.loads(Path(hf_hub_download(repo, results[0], repo_type="dataset")).read_text())
DatasetCard("# Results").push_to_hub(repo, repo_type="dataset")
answer = [listed, read["model_name"], api.dataset_info(repo).private]
"""


def write_run(folder: Path, model: str) -> str:
    folder.mkdir()
    (folder / f"results_{TIME}.json").write_bytes(lm_eval_results(model))
    (folder / f"samples_gsm8k_{TIME}.jsonl").write_bytes(DOCUMENTS)
    (folder / "notes.txt").write_text("not results")
    return str(folder)


def test_results_pushed_by_lm_eval_become_evidence_and_can_be_read_back(
    server: Server, tmp_path: Path
) -> None:
    push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), AdapterName.parse(TONE))
    version = server.registry().version(TONE)
    model = f"{TONE}@{version.digest}"
    folder = write_run(tmp_path / "run", model)
    answer, said = run_client(server, PUSH, tmp_path, repo=INBOX, folder=folder, model=model, time=TIME)
    listed, read, _ = answer
    flat = f"acme__tone_sha256_{version.digest.hex}"
    assert listed == [
        f"acme/tone_sha256_{version.digest.hex}/results_{TIME}.json",
        f"{flat}/samples_gsm8k_{TIME}.jsonl",
    ]
    assert read == model
    assert "/notes.txt (only results" in said
    found = server.registry().evidence.list(Ref.parse(TONE), task="gsm8k").items
    assert [one.samples is not None for one in found] == [True]
    assert server.registry().inbox.list("acme").items == ()


def test_results_without_a_revision_are_kept_apart_and_the_client_shows_the_reason(
    server: Server, tmp_path: Path
) -> None:
    push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), AdapterName.parse(TONE))
    folder = write_run(tmp_path / "run", "./out")
    _, said = run_client(server, PUSH, tmp_path, repo=INBOX, folder=folder, model="./out", time=TIME)
    assert "is kept in the inbox: the file does not state which version was measured" in said
    (kept,) = server.registry().inbox.list("acme").items
    assert (kept.model, kept.samples, kept.path) == ("./out", 1, f"out/results_{TIME}.json")


def test_a_caller_sees_only_their_own_files_and_strangers_keep_nothing(
    server: Server, tmp_path: Path
) -> None:
    push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), AdapterName.parse(TONE))
    ron = server.token_of(Identity.with_role("ron", "viewer", ("acme",)))
    eve = server.token_of(Identity.with_role("eve", "owner", ("evil",)))
    body = lines({f"out/results_{TIME}.json": lm_eval_results("./out")})
    commit, tree = f"/api/datasets/{INBOX}/commit/main", f"/api/datasets/{INBOX}/tree/main?recursive=true"
    ndjson = {"Content-Type": "application/x-ndjson"}
    assert server.call("POST", commit, body, token=ron, headers=ndjson).status == 200
    assert [one["path"] for one in server.call("GET", tree, token=ron).json if one["type"] == "file"]
    assert server.call("GET", tree).json == []
    assert server.call("GET", tree, token=eve).json == []
    assert server.call("POST", commit, body, token=eve, headers=ndjson).status == 404
    assert server.call("GET", tree, token=None).status == 401


def test_a_commit_takes_nothing_but_results(server: Server) -> None:
    commit, ndjson = f"/api/datasets/{INBOX}/commit/main", {"Content-Type": "application/x-ndjson"}
    for body in (
        lines({"a/notes.txt": b"x"}),
        lines({}, {"key": "deletedFile", "value": {"path": "a"}}),
        lines({f"a/samples_gsm8k_{TIME}.jsonl": DOCUMENTS}),
        lines({f"a/results_{TIME}.json": json.dumps({"results": 1}).encode()}),
        b"{",
    ):
        answer = server.call("POST", commit, body, headers=ndjson)
        assert answer.status in (400, 409), answer.body
    assert server.registry().inbox.posted("acme") == ()


def test_many_files_with_one_reason_are_one_warning(server: Server) -> None:
    files = [{"path": f"out/notes-{at}.txt", "size": 1} for at in range(256)]
    answer = server.call("POST", f"/api/datasets/{INBOX}/preupload/main", {"files": files})
    assert all(one["shouldIgnore"] for one in answer.json["files"])
    assert "out/notes-0.txt" in (said := answer.headers["X-HF-Warning"])
    assert "more (only results" in said


def test_a_commit_of_many_files_is_answered_with_few_warnings(server: Server) -> None:
    models = ["./out"] * 3 + [f"acme/none-{at}@{'0' * 64}" for at in range(9)]
    body = lines({f"{at}/results_{TIME}.json": _results(model, at) for at, model in enumerate(models)})
    answer = _commit(server, body)
    assert answer.status == 200
    said = answer.headers.get_all("X-HF-Warning", [])
    assert len(said) == 5
    assert f"0/results_{TIME}.json, 1/results_{TIME}.json" in said[0]
    assert "are kept in the inbox: the file does not state" in said[0]
    assert "6 more files are kept in the inbox for other reasons" in said[-1]


def test_a_commit_of_too_many_files_posts_none(server: Server) -> None:
    body = lines({f"{at}/results_{TIME}.json": _results("./out", at) for at in range(65)})
    answer = _commit(server, body)
    assert answer.status == 413
    assert b"at most 64 results files" in answer.body
    assert server.registry().inbox.posted("acme") == ()


def _results(model: str, at: int) -> bytes:
    return lm_eval_results(model, value=at / 128)


def _commit(server: Server, body: bytes) -> RawResponse:
    ndjson = {"Content-Type": "application/x-ndjson"}
    return server.call("POST", f"/api/datasets/{INBOX}/commit/main", body, headers=ndjson)


def test_no_other_data_set_exists(server: Server) -> None:
    for name in ("acme/other", "acme/lm-eval-results-2"):
        assert server.call("POST", "/api/repos/create", {"type": "dataset", "name": name}).status == 400
        assert server.call("GET", f"/api/datasets/{name}").headers["X-Error-Code"] == "RepoNotFound"
    made = server.call("POST", "/api/repos/create", {"type": "dataset", "name": INBOX})
    assert (made.status, made.json["name"]) == (200, INBOX)
