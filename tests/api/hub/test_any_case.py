"""A name in another case is redirected to its canonical spelling, for every method and kind of repository,
with the token kept.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName
from adaptry.operations import base_registry
from adaptry.testing.samples import tiny_base
from adaptry_api.testing import Server

from .clients import run_client
from .pushed import CARD, CONFIG, README, TONE, create, files_of, put

NAME = AdapterName.parse(TONE)


@pytest.fixture
def files(server: Server, tmp_path: Path) -> dict[str, bytes]:
    made = files_of(tmp_path / "tone") | {README: CARD}
    create(server)
    put(server, made)
    base_registry.register_base(
        server.registry(), open_checkpoint(tiny_base(tmp_path / "base")), ("org/Tiny", "Word"), store=True
    )
    return made


@pytest.mark.parametrize(
    ("asked", "canonical"),
    [
        ("/api/models/ACME/Tone", "/api/models/acme/tone"),
        ("/Acme/TONE/resolve/main/README.md?download=1", "/acme/tone/resolve/main/README.md?download=1"),
        ("/api/models/Acme/Tone/tree/refs%2Fheads%2Fmain", "/api/models/acme/tone/tree/refs%2Fheads%2Fmain"),
        ("/api/models/org/tiny", "/api/models/org/Tiny"),
        ("/ORG/TINY/resolve/main/config.json", "/org/Tiny/resolve/main/config.json"),
        ("/api/models/word", "/api/models/Word"),
        ("/WORD/resolve/main/config.json", "/Word/resolve/main/config.json"),
    ],
)
def test_reading_leads_to_the_canonical_spelling(
    server: Server, files: dict[str, bytes], asked: str, canonical: str
) -> None:
    for method in ("GET", "HEAD") if "resolve" in asked else ("GET",):
        answer = server.call(method, asked)
        assert (answer.status, answer.headers["Location"]) == (307, canonical)
    assert server.call("GET", canonical).status == 200


def test_callers_who_cannot_read_an_adapter_are_not_redirected_to_it(
    server: Server, files: dict[str, bytes]
) -> None:
    stranger = server.token("stranger", "writer", ("elsewhere",))
    for token in (stranger, None):
        assert server.call("GET", "/api/models/ACME/Tone", token=token).status in (401, 404)
        assert server.call("GET", "/api/models/org/tiny", token=token).status in (401, 404)


def test_a_name_that_differs_by_case_alone_is_refused(server: Server, files: dict[str, bytes]) -> None:
    answer = server.call("POST", "/api/v1/adapters", {"name": "Acme/tone"})
    assert (answer.status, "differs only in case" in answer.json["detail"]) == (409, True)


def test_names_of_an_older_registry_that_differ_by_case_alone_are_each_reached_by_their_own_spelling(
    server: Server, files: dict[str, bytes]
) -> None:
    create(server, "acme/other")
    put(server, {README: b"# The other\n"}, name="acme/other")
    with closing(sqlite3.connect(server.data / "catalog.sqlite")) as database, database:
        database.execute("INSERT INTO namespaces (name) VALUES ('Acme')")
        database.execute(
            "UPDATE adapters SET name = 'Acme/tone', folded = NULL, namespace = 'Acme' WHERE name ="
            " 'acme/other'"
        )
    assert server.call("GET", f"/Acme/tone/resolve/main/{README}").body == b"# The other\n"
    assert server.call("GET", f"/{TONE}/resolve/main/{README}").body == CARD
    assert server.call("GET", f"/ACME/tone/resolve/main/{README}").status == 404


def test_a_listing_by_author_does_not_regard_case(server: Server, files: dict[str, bytes]) -> None:
    assert [found["id"] for found in server.call("GET", "/api/models?author=ACME").json] == [TONE]
    assert server.call("GET", "/api/organizations/Acme/overview").json["numModels"] == 1


def test_creating_a_name_in_another_case_returns_the_existing_one(
    server: Server, files: dict[str, bytes]
) -> None:
    answer = create(server, "ACME/tone")
    assert (answer.status, answer.json["id"]) == (409, TONE)


def test_a_real_client_downloads_uploads_moves_and_deletes_in_any_case(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    code = """
config = Path(hf_hub_download("ACME/Tone", "adapter_config.json")).read_text()
snapshot_download("Acme/TONE", local_dir=there)
api.upload_file(path_or_fileobj=b"# Changed", path_in_repo="README.md", repo_id="ACME/tone")
readme = Path(hf_hub_download("acme/tone", "README.md")).read_text()
api.create_tag("ACME/tone", tag="first")
listed = sorted(api.list_repo_files("acme/TONE"))
api.move_repo("ACME/TONE", "acme/moved")
api.delete_repo("acme/MOVED")
answer = [config, readme, listed, api.repo_exists("acme/moved")]
"""
    answer, _ = run_client(server, code, tmp_path, there=str(tmp_path / "there"))
    config, readme, listed, is_there = answer
    assert config.encode() == files[CONFIG]
    assert readme == "# Changed"
    assert listed == sorted(files)
    assert is_there is False


@pytest.mark.parametrize("has_xet", [True, False], ids=["xet", "lfs"])
def test_large_files_are_uploaded_in_any_case(
    server: Server, files: dict[str, bytes], tmp_path: Path, has_xet: bool
) -> None:
    files_of(tmp_path / "second", seed=7)
    code = f"""
from huggingface_hub import constants
constants.HF_HUB_DISABLE_XET = {not has_xet}
first = api.upload_folder(folder_path=folder, repo_id="ACME/Tone").oid
answer = [first, api.model_info("acme/tone").sha]
"""
    (first, now), _ = run_client(server, code, tmp_path, folder=str(tmp_path / "second"))
    assert first == now
    assert [version.number for version in server.registry().versions.list(NAME).items] == [2, 1]
