"""The installed, unmodified huggingface_hub client performs everyday operations against a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

from .clients import run_client
from .pushed import CARD, README, TONE, WEIGHTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tiny_lora(tmp_path / "tone")
    (made / README).write_bytes(CARD)
    (made / "training_args.bin").write_bytes(b"\x80\x02")
    return made


PUSHED = """
api.create_repo(name, exist_ok=True)
pushed = api.upload_folder(repo_id=name, folder_path=folder)
"""


def test_a_folder_is_uploaded_and_downloaded(server: Server, folder: Path, tmp_path: Path) -> None:
    code = """
again = api.upload_folder(repo_id=name, folder_path=folder)
down = Path(snapshot_download(name, revision="v1"))
into = Path(snapshot_download(name, local_dir=folder + "-down"))
answer = [pushed.oid == again.oid, sorted(os.listdir(down)), \
(into / weights).read_bytes() == Path(folder, weights).read_bytes()]
"""
    answer, said = run_client(server, PUSHED + code, tmp_path, name=TONE, folder=str(folder), weights=WEIGHTS)
    assert answer == [True, [README, "adapter_config.json", WEIGHTS], True]
    assert "left out: training_args.bin (a pickle" in said


def test_a_missing_repository_or_file_raises_the_clients_own_error(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    code = """
said(RepositoryNotFoundError, lambda: api.model_info("acme/none"))
said(RevisionNotFoundError, lambda: hf_hub_download(name, "README.md", revision="v9"))
said(EntryNotFoundError, lambda: hf_hub_download(name, "none.json"))
said(RepositoryNotFoundError, lambda: HfApi(token=False).model_info(name))
said(RevisionNotFoundError, lambda: \
api.upload_file(path_or_fileobj=b"x", path_in_repo="README.md", repo_id=name, revision=pushed.oid))
answer = [file_exists(name, "README.md"), file_exists(name, "none"), \
repo_exists("gpt2"), revision_exists(name, "v1")]
"""
    answer, _ = run_client(server, PUSHED + code, tmp_path, name=TONE, folder=str(folder))
    assert answer == [True, False, False, True]


def test_refusals_reach_the_user_with_our_message(server: Server, folder: Path, tmp_path: Path) -> None:
    code = """
answer = [
    said(BadRequestError, lambda: \
api.upload_file(path_or_fileobj=b"x", path_in_repo="model.safetensors", repo_id=name)),
    said(HfHubHTTPError, lambda: \
api.create_commit(name, [CommitOperationAdd("README.md", b"x")], commit_message="m", create_pr=True)),
    said(HfHubHTTPError, lambda: \
api.create_commit(name, [CommitOperationAdd("README.md", b"x")], commit_message="m", parent_commit="0" * 40)),
    said(HfHubHTTPError, lambda: HfApi(token=reader).delete_repo(name)),
]
"""
    reader = server.token("rita", "reader", ("acme",))
    answer, _ = run_client(server, PUSHED + code, tmp_path, name=TONE, folder=str(folder), reader=reader)
    for words, text in zip(
        ("whole model", "no pull requests", "refresh", "rita may not change"), answer, strict=True
    ):
        assert words in text


def test_the_message_without_a_token_is_to_set_one(
    start: Callable[..., Server], folder: Path, tmp_path: Path
) -> None:
    """The server lets everyone read public adapters."""
    server = start(anonymous_read=True)
    run_client(server, PUSHED, tmp_path, name=TONE, folder=str(folder))
    code = """
nobody = HfApi(token=False)
answer = [
    said(RepositoryNotFoundError, lambda: nobody.model_info(name)),
    said(RepositoryNotFoundError, lambda: nobody.hf_hub_download(name, "README.md")),
    said(RepositoryNotFoundError, lambda: nobody.model_info("acme/none")),
    said(HfHubHTTPError, lambda: nobody.create_repo("acme/other")),
]
"""
    answer, _ = run_client(server, code, tmp_path, name=TONE)
    assert ["set HF_TOKEN to a token of this registry" in text for text in answer] == [True] * 4
    assert "callers without a token may only read" in answer[3]


def test_branches_tags_and_names_with_slashes(server: Server, folder: Path, tmp_path: Path) -> None:
    code = """
api.create_branch(name, branch="feat/x")
api.create_tag(name, tag="first")
there = api.upload_file(path_or_fileobj=b"# New", path_in_repo="README.md", repo_id=name, revision="feat/x")
answer = [
    Path(hf_hub_download(name, "README.md", revision=revision)).read_text() == "# New"
    for revision in ("feat/x", "refs/heads/feat/x", there.oid, "first", "main")
]
"""
    answer, _ = run_client(server, PUSHED + code, tmp_path, name=TONE, folder=str(folder))
    assert answer == [True, True, True, False, False]


def test_an_upload_overtaken_by_another_mixes_no_weights_with_the_others_config(
    server: Server, tmp_path: Path
) -> None:
    """The client omits files that the branch had when it announced them."""
    folders = {
        name: str(tiny_lora(tmp_path / name, seed=seed, alpha=alpha))
        for name, seed, alpha in (("first", 1, 8), ("slow", 2, 8), ("quick", 3, 64))
    }
    (alphas, same), _ = run_client(
        server,
        """
import huggingface_hub._commit_api as parts
api.create_repo("acme/tone")
def upload(name):
    return api.upload_folder(repo_id="acme/tone", folder_path=folders[name]).oid
send = parts._prepare_commit_payload
def overtaken(*args, **options):
    parts._prepare_commit_payload = send
    upload("quick")
    return send(*args, **options)
upload("first")
parts._prepare_commit_payload = overtaken
upload("slow")
def version(revision, name):
    here = Path(api.snapshot_download("acme/tone", revision=revision))
    weights = "adapter_model.safetensors"
    assert (here / weights).read_bytes() == (Path(folders[name]) / weights).read_bytes()
    return json.loads((here / "adapter_config.json").read_text())["lora_alpha"]
alphas = [version("v1", "first"), version("v2", "quick"), version("v3", "slow")]
answer = alphas, upload("slow") == upload("slow")
""",
        tmp_path,
        folders=folders,
    )
    assert alphas == [8, 64, 8]
    assert same, "an unchanged upload makes no commit"


def test_files_announced_one_by_one_are_committed_together_though_one_is_unchanged(
    server: Server, tmp_path: Path
) -> None:
    """`preupload_lfs_files` announces the weights long before the commit, and `upload_large_folder` each file
    as soon as it is hashed. Another upload may come in between.
    """
    folders = {
        name: str(tiny_lora(tmp_path / name, seed=seed, alpha=alpha))
        for name, seed, alpha in (("first", 1, 8), ("slow", 1, 16), ("quick", 3, 64))
    }
    (alpha, is_own, newest), _ = run_client(
        server,
        """
api.create_repo("acme/tone")
api.upload_folder(repo_id="acme/tone", folder_path=folders["first"])
def files():
    both = weights, "adapter_config.json"
    return [CommitOperationAdd(file, Path(folders["slow"], file)) for file in both]
slow = files()
api.preupload_lfs_files("acme/tone", slow[:1])
api.upload_folder(repo_id="acme/tone", folder_path=folders["quick"])
api.create_commit("acme/tone", slow, commit_message="slow")
here = Path(api.snapshot_download("acme/tone", revision="v3"))
api.create_commit("acme/tone", files(), commit_message="again")
answer = (
    json.loads((here / "adapter_config.json").read_text())["lora_alpha"],
    (here / weights).read_bytes() == Path(folders["slow"], weights).read_bytes(),
    [commit.title for commit in api.list_repo_commits("acme/tone")][0],
)
""",
        tmp_path,
        folders=folders,
        weights=WEIGHTS,
    )
    assert (alpha, is_own) == (16, True)
    assert newest == "slow", "an unchanged commit is not made again"


def test_a_refused_upload_of_a_checkpoint_in_the_background_is_logged(server: Server, tmp_path: Path) -> None:
    """The Trainer uploads checkpoints like this, and drops the errors of these uploads."""
    tiny_lora(tmp_path / "checkpoint-2")
    code = """
api.create_repo("acme/tone")
api.upload_folder(repo_id="acme/tone", folder_path=folder)
def upload(**to):
    sent = {"path_in_repo": "checkpoint-2", "folder_path": folder, "run_as_future": True}
    return api.upload_folder(repo_id="acme/tone", **sent, **to).exception()
api.create_branch("acme/tone", branch="drafts")
answer = [str(upload()), str(upload(revision="drafts")), api.list_repo_files("acme/tone", revision="drafts")]
"""
    (refusal, none, files), output = run_client(server, code, tmp_path, folder=str(tmp_path / "checkpoint-2"))
    line = next(line for line in output.splitlines() if "none of this upload's files would be stored" in line)
    assert "commit checkpoints to a branch" in line
    assert line in refusal.splitlines()
    assert none == "None"
    assert "checkpoint-2/adapter_model.safetensors" in files
