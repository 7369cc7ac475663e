"""A README's images over HTTP and the Hub protocol, and uploads without any file that would be stored."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.images import MAX_IMAGE, MAX_IMAGES
from adaptry.core.errors import Unsupported
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

from .clients import run_client
from .pushed import TONE, create, files_of, lines, send

NAME = AdapterName.parse(TONE)


def picture(format: str) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(data, format)
    return data.getvalue()


PICTURES = {"plot.png": picture("PNG"), "photo.jpg": picture("JPEG"), "Shot.webp": picture("WEBP")}


def test_images_are_pushed_over_http_pulled_back_and_never_shown_as_pages(
    server: Server, tmp_path: Path
) -> None:
    folder = tiny_lora(tmp_path / "tone")
    for name, data in PICTURES.items():
        (folder / name).write_bytes(data)
    push(server.registry(), open_dir(folder), NAME)
    pull(server.registry(), Ref(NAME), tmp_path / "back")
    for name, data in PICTURES.items():
        assert (tmp_path / "back" / name).read_bytes() == data
        answer = server.call("GET", f"/{TONE}/resolve/main/{name}")
        assert answer.body == data
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_real_client_uploads_and_downloads_images(server: Server, tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path / "tone")
    for name, data in PICTURES.items():
        (folder / name).write_bytes(data)
    code = """
api.create_repo("acme/tone")
api.upload_folder(folder_path=folder, repo_id="acme/tone")
answer = {path: Path(hf_hub_download("acme/tone", path)).read_bytes().hex() \
for path in api.list_repo_files("acme/tone")}
"""
    read, _ = run_client(server, code, tmp_path, folder=str(folder))
    assert {name: bytes.fromhex(read[name]) for name in PICTURES} == PICTURES


def test_a_file_that_is_not_an_image_is_refused_with_the_reason(server: Server, tmp_path: Path) -> None:
    create(server)
    files = files_of(tmp_path / "tone")
    for bad in (b"\x89PNG\r\n\x1a\n<html>", PICTURES["plot.png"] + b"<script>"):
        answer = send(server, lines({**files, "plot.png": bad}))
        assert answer.status == 400
        assert "plot.png is not a valid PNG image" in answer.json["error"]
        alone = send(server, lines({"plot.png": bad}))
        assert alone.status == 400
    assert server.registry().versions.list(NAME).items == ()


def test_an_image_that_is_too_large_is_left_out_before_its_upload(server: Server) -> None:
    create(server)
    body = {"files": [{"path": "plot.png", "size": MAX_IMAGE + 1}, {"path": "README.md", "size": 3}]}
    answer = server.call("POST", f"/api/models/{TONE}/preupload/main", body)
    assert [file["shouldIgnore"] for file in answer.json["files"]] == [True, False]
    assert "plot.png (an image of more than 4 MiB)" in answer.headers["X-HF-Warning"]


def test_our_own_push_of_a_broken_image_is_refused_by_the_server_too(server: Server, tmp_path: Path) -> None:
    adapter = open_dir(tiny_lora(tmp_path / "tone"))
    registry = server.registry()
    bad = b"\xff\xd8\xff<html>"
    manifest = push(registry, adapter, NAME).version
    detail = registry.versions.detail(Ref(NAME))
    assert manifest.number == 1
    digest = hashlib.sha256(bad).hexdigest()
    from adaptry.core.digest import Digest
    from adaptry.core.manifest import Manifest
    from adaptry.registry.records import PushOptions

    session = registry.uploads.open(NAME, Digest(digest), len(bad))
    registry.uploads.finish(registry.uploads.append(session, 0, [bad]))
    tree = {entry.path: (entry.size, entry.sha256) for entry in detail.manifest.files}
    forged = Manifest.of({**tree, "photo.jpg": (len(bad), Digest(digest))})
    with pytest.raises(Unsupported, match="not a valid JPEG image"):
        registry.versions.put(NAME, forged.to_bytes(), PushOptions())


def test_an_upload_without_a_storable_file_fails_and_lists_the_files_with_reasons(
    server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"\x80\x04.")
    (folder / "train.py").write_text("print()")
    code = """
api.create_repo("acme/tone")
answer = [said(HfHubHTTPError, lambda: api.upload_folder(folder_path=folder, repo_id="acme/tone"))]
(Path(folder) / ".gitignore").write_text("*")
answer += [said(HfHubHTTPError, lambda: api.upload_folder(folder_path=folder, repo_id="acme/tone"))]
(Path(folder) / ".gitignore").unlink()
(Path(folder) / "README.md").write_text("# Tone")
answer += [api.upload_folder(folder_path=folder, repo_id="acme/tone").oid]
"""
    (refused, ignored, oid), _ = run_client(server, code, tmp_path, folder=str(folder))
    assert "none of this upload's files would be stored" in refused
    assert "optimizer.pt (a pickle" in refused
    assert "train.py (a program" in refused
    assert "optimizer.pt, train.py (ignored by .gitignore)" in ignored
    assert ".gitignore (" not in ignored
    assert len(oid) == 40


@pytest.mark.parametrize("most", [256, 100], ids=["python", "javascript"])
def test_one_batch_of_a_long_upload_may_be_left_out_whole(server: Server, most: int) -> None:
    create(server)

    def announce(*paths: str) -> int:
        body = {"files": [{"path": path, "size": 3} for path in paths]}
        return server.call("POST", f"/api/models/{TONE}/preupload/main", body).status

    assert announce("a.log") == 400
    assert announce(*(f"{number}.log" for number in range(most))) == 200
    assert announce("README.md") == 200
    assert announce("a.log") == 200
    assert announce(".gitattributes") == 200


def test_a_commit_leaves_out_the_same_images_as_an_announcement_with_a_warning(server: Server) -> None:
    create(server)
    pictures = {f"plot-{number:02}.png": PICTURES["plot.png"] for number in range(MAX_IMAGES)}
    assert send(server, lines(pictures)).status == 200
    answer = send(server, lines({"one-more.png": PICTURES["plot.png"], "plot-00.png": PICTURES["plot.png"]}))
    assert answer.status == 200
    assert f"one-more.png (more than {MAX_IMAGES} images)" in answer.headers["X-HF-Warning"]
    tree = server.call("GET", f"/api/models/{TONE}/tree/main").json
    assert {entry["path"] for entry in tree} == set(pictures)
    alone = send(server, lines({"one-more.png": PICTURES["plot.png"]}))
    assert alone.status == 400
    assert f"one-more.png (more than {MAX_IMAGES} images)" in alone.json["error"]
    large = {"path": "large.png", "algo": "sha256", "oid": "0" * 64, "size": MAX_IMAGE + 1}
    answer = send(server, lines({}, {"key": "lfsFile", "value": large}))
    assert (answer.status, "an image of more than 4 MiB" in answer.json["error"]) == (400, True)
