"""`acme/tone.merged`: the checkpoint of a base with an adapter merged in, read by the Hub protocol."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import RawResponse, Server, running_server

MODEL = "acme/tone.merged"
NAME = AdapterName.parse("acme/tone")
WEIGHTS = "model-00001-of-00002.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base", shards=2)


@pytest.fixture(params=[True, False], ids=["stored", "in a folder"])
def is_stored(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def version(server: Server, registry: HttpRegistry, base: Path, tone: Adapter) -> Digest:
    """The digest of `acme/tone@1`; its base is still in the folder from which it was registered."""
    base_registry.register_base(registry, open_checkpoint(base), ("org/tiny",))
    return push(registry, tone, NAME).version.digest


def merged_on_disk(base: Path, adapter: Adapter, target: Path) -> dict[str, bytes]:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone"),))
    merge(recipe, open_checkpoint(base), [MergeSource(WeightedAdapter(adapter, 1.0, "tone"))], target)
    return {path.name: path.read_bytes() for path in target.iterdir() if path.name != "adaptry_merge.json"}


def info(server: Server, revision: str = "main", model: str = MODEL) -> Any:
    answer = server.call("GET", f"/api/models/{model}/revision/{quote(revision, safe='')}")
    assert answer.status == 200, answer.body
    return answer.json


def read(server: Server, name: str, revision: str = "main", **headers: str) -> RawResponse:
    return server.call("GET", f"/{MODEL}/resolve/{revision}/{name}", headers=headers)


def listed(server: Server, revision: str = "main") -> dict[str, Any]:
    return {entry["path"]: entry for entry in server.call("GET", f"/api/models/{MODEL}/tree/{revision}").json}


def test_the_files_are_those_of_a_merge_on_disk(
    server: Server, registry: HttpRegistry, base: Path, tone: Adapter, is_stored: bool, tmp_path: Path
) -> None:
    base_registry.register_base(registry, open_checkpoint(base), ("org/tiny",), store=is_stored)
    push(registry, tone, NAME)
    written = merged_on_disk(base, tone, tmp_path / "merged")
    if is_stored:
        base.rename(tmp_path / "gone")

    names = {sibling["rfilename"] for sibling in info(server)["siblings"]}

    assert names == {*written, "adaptry_merge.json"}
    assert {name: read(server, name).body for name in written} == written


def test_a_range_is_that_part_of_the_file(
    server: Server, version: Digest, base: Path, tone: Adapter, tmp_path: Path
) -> None:
    whole = merged_on_disk(base, tone, tmp_path / "merged")[WEIGHTS]

    part, rest = read(server, WEIGHTS, Range="bytes=5000-6000"), read(server, WEIGHTS, Range="bytes=9001-")
    beyond = read(server, WEIGHTS, Range=f"bytes={len(whole)}-")

    assert (part.status, part.body) == (206, whole[5000:6001])
    assert (rest.status, rest.body) == (206, whole[9001:])
    assert rest.headers["Content-Range"] == f"bytes 9001-{len(whole) - 1}/{len(whole)}"
    assert beyond.status == 416


def test_size_and_identity_are_known_before_bytes_are_computed(
    server: Server, version: Digest, base: Path, tone: Adapter, tmp_path: Path
) -> None:
    whole = merged_on_disk(base, tone, tmp_path / "merged")[WEIGHTS]

    head = server.call("HEAD", f"/{MODEL}/resolve/main/{WEIGHTS}")

    assert head.status == 200
    assert int(head.headers["X-Linked-Size"]) == len(whole)
    assert head.headers["X-Repo-Commit"] == info(server)["sha"]
    assert len(head.headers["ETag"].strip('"')) == 40


def test_a_files_etag_is_its_sha256_after_one_complete_read(server: Server, version: Digest) -> None:
    assert "lfs" not in listed(server)[WEIGHTS]

    digest = hashlib.sha256(read(server, WEIGHTS).body).hexdigest()

    assert eventually(lambda: listed(server)[WEIGHTS].get("lfs", {}).get("oid")) == digest
    assert read(server, WEIGHTS).headers["ETag"] == f'"{digest}"'


def eventually(found: Callable[[], Any]) -> Any:
    """The files, once they exist: the server may find them only a moment after its response."""
    for _ in range(1000):
        if (value := found()) is not None:
            return value
    return None


def test_every_name_of_an_adapters_revision_is_valid_for_its_merged_model(
    server: Server, registry: HttpRegistry, version: Digest, base: Path, tmp_path: Path
) -> None:
    registry.aliases.move(NAME, "prod", version, None)
    second = push(registry, open_dir(tiny_lora(tmp_path / "second", seed=9)), NAME).version.digest

    first = {info(server, word)["sha"] for word in ("v1", "prod", version.short_id, version.short_id[:9])}
    newest = {info(server, word)["sha"] for word in ("main", "v2", "refs/heads/main", second.short_id)}

    assert len(first) == len(newest) == 1
    assert first != newest


def test_a_commits_id_always_means_the_same_bytes(
    server: Server, registry: HttpRegistry, version: Digest, tmp_path: Path
) -> None:
    commit = info(server)["sha"]
    before = read(server, WEIGHTS).body
    push(registry, open_dir(tiny_lora(tmp_path / "second", seed=9)), NAME)

    assert info(server)["sha"] != commit
    assert info(server, commit)["sha"] == commit
    assert read(server, WEIGHTS, commit).body == before


def test_a_commit_whose_bytes_would_be_different_now_is_absent(server: Server, version: Digest) -> None:
    commit = info(server)["sha"]
    other = commit[:24] + "0" * 16

    answer = server.call("GET", f"/api/models/{MODEL}/revision/{other}")

    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")
    assert "as the revision, such as v1" in answer.json["error"]


def test_a_commit_that_changes_no_weights_is_merged_like_its_version(
    server: Server, registry: HttpRegistry, version: Digest
) -> None:
    before = info(server)["sha"]
    tree = registry.commits.tree(NAME, version)
    fewer = tree.model_copy(update={"files": tuple(file for file in tree.files if file.path != "README.md")})
    registry.commits.put(NAME, "main", fewer.to_bytes(), CommitNote(title="no card"))

    assert info(server, model="acme/tone")["sha"] != version.short_id or fewer == tree
    assert info(server)["sha"] == before


def test_a_repository_without_an_adapter_has_no_merged_model(server: Server, registry: HttpRegistry) -> None:
    registry.adapters.create(NAME, AdapterEdit())

    answer = server.call("GET", f"/api/models/{MODEL}")

    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")
    assert "has no complete adapter" in answer.json["error"]


def test_a_version_with_an_unknown_base_has_a_remedy(
    server: Server, registry: HttpRegistry, base: Path, tone: Adapter
) -> None:
    digest = push(registry, tone, NAME).version.digest

    answer = server.call("GET", f"/api/models/{MODEL}")

    assert answer.status == 400
    assert "acme/tone@1 is not served merged" in answer.json["error"]
    assert "adaptry base add FOLDER --name ORG/MODEL --store" in answer.json["error"]
    assert "adaptry base bind acme/tone@1 ORG/MODEL" in answer.json["error"]
    known = base_registry.register_base(registry, open_checkpoint(base), ("org/not-in-the-config",))
    assert server.call("GET", f"/api/models/{MODEL}").status == 400
    registry.versions.bind_base(NAME, digest, known.id)
    assert registry.versions.get(Ref.parse("acme/tone")).base_status == "verified"


def test_an_unmergeable_version_has_a_reason(
    server: Server, registry: HttpRegistry, base: Path, tmp_path: Path
) -> None:
    base_registry.register_base(registry, open_checkpoint(base), ("org/tiny",))
    push(registry, open_dir(tiny_lora(tmp_path / "flat", config={"use_qalora": True})), NAME)

    answer = server.call("GET", f"/api/models/{MODEL}")

    assert answer.status == 400
    assert answer.json["error"] == "acme/tone@1: QA-LoRA belongs to one quantised base: serve it on that"


def test_the_merged_model_of_a_hidden_adapter_is_absent(server: Server, version: Digest) -> None:
    stranger = server.token("eve", "reader", ("other",))

    answers = [
        server.call("GET", path, token=stranger)
        for path in (
            f"/api/models/{MODEL}",
            "/api/models/acme/none.merged",
            f"/{MODEL}/resolve/main/config.json",
        )
    ]

    assert [(answer.status, answer.headers["X-Error-Code"]) for answer in answers] == [
        (404, "RepoNotFound")
    ] * 3


def test_a_merged_model_states_its_inputs(server: Server, version: Digest) -> None:
    said = info(server)

    assert {"merged", "base_model:org/tiny", "adapter:acme/tone@1"} <= set(said["tags"])
    assert (said["id"], said["library_name"], said["cardData"]["base_model"]) == (
        MODEL,
        "transformers",
        "org/tiny",
    )


def test_no_adapter_can_have_the_name_of_a_merged_model(
    server: Server, registry: HttpRegistry, tone: Adapter
) -> None:
    with pytest.raises(InvalidRef, match=r"the ending \.merged is reserved"):
        push(registry, tone, MODEL)
    made = server.call("POST", "/api/repos/create", {"name": "tone.Merged", "organization": "acme"})
    assert made.status == 400
    assert "the ending .merged is reserved" in made.json["error"]


def test_a_read_survives_a_killed_merge_process(
    server: Server, version: Digest, base: Path, tone: Adapter, tmp_path: Path
) -> None:
    whole = merged_on_disk(base, tone, tmp_path / "merged")[WEIGHTS]
    info(server)
    for pid in computing_for(os.getpid()):
        os.kill(pid, signal.SIGKILL)

    assert read(server, WEIGHTS).body == whole


def computing_for(pid: int) -> Iterator[int]:
    """The processes that compute for the server with the process id `pid`."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            command, facts = status.with_name("cmdline").read_bytes(), status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended
        if b"adaptry.compute.merging.streaming" in command and f"\nPPid:\t{pid}\n" in facts:
            yield int(status.parent.name)


def test_finished_files_are_cached_up_to_the_configured_size(
    base: Path, tone: Adapter, tmp_path: Path
) -> None:
    with running_server(ServerSettings(data=tmp_path / "data", merged_cache=1 << 30)) as server:
        base_registry.register_base(server.registry(), open_checkpoint(base), ("org/tiny",))
        push(server.registry(), tone, NAME)
        first, second = read(server, WEIGHTS).body, read(server, WEIGHTS).body

    assert first == second
    kept = [path.read_bytes() for path in (tmp_path / "data" / "merged" / "files").iterdir()]
    assert kept == [first]
