"""Adapters as OCI artifacts: pushed to Docker's registry, read by skopeo, and listed as referrers of their
base.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.exporting.oci.artifact import (
    ARTIFACT,
    INDEX,
    MANIFEST,
    Artifact,
    adapter_artifact,
    base_artifact,
)
from adaptry.compute.exporting.oci.layout import write_layout
from adaptry.compute.exporting.oci.reference import OciReference
from adaptry.core.errors import Invalid, NotFound, Unauthenticated, Unavailable
from adaptry.operations.oci.push import OciRepository
from adaptry.testing.certificates import self_signed
from adaptry.testing.samples import tiny_base, tiny_lora

from .docker_registry import needed, running, skopeo

pytestmark = needed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("registry")) as address:
        yield address


def artifact(folder: Path, seed: int = 1) -> Artifact:
    base = fingerprint(open_checkpoint(tiny_base(folder / "base")))
    adapter = open_dir(tiny_lora(folder / f"lora{seed}", seed=seed))
    return adapter_artifact(adapter, name="acme/tone@3", base=base_artifact(base, "org/tiny"))


def manifest(address: str, repository: str, name: str) -> Any:
    """(`Any`: JSON.)"""
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{name}")
    request.add_header("Accept", f"{MANIFEST}, application/vnd.oci.image.index.v1+json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_skopeo_pulls_the_exact_files_with_modelpacks_types(server: str, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    pushed = OciRepository(OciReference.parse(f"oci://{server}/acme/tone:v3")).push(made)
    skopeo("copy", "--src-tls-verify=false", f"docker://{server}/acme/tone:v3", f"dir:{tmp_path}/pulled")
    got = (tmp_path / "pulled" / "manifest.json").read_bytes()
    assert hashlib.sha256(got).hexdigest() == pushed.descriptor.digest.hex
    told = json.loads(got)
    assert told["artifactType"] == ARTIFACT
    files = {layer["annotations"]["org.cncf.model.filepath"]: layer for layer in told["layers"]}
    assert files["adapter_model.safetensors"]["mediaType"] == "application/vnd.cncf.model.weight.v1.raw"
    for name, layer in files.items():
        pulled = (tmp_path / "pulled" / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert pulled == (tmp_path / "lora1" / name).read_bytes()


def test_a_base_lists_its_adapters_without_the_referrers_api(server: str, tmp_path: Path) -> None:
    made = [artifact(tmp_path, seed) for seed in (1, 2)]
    pushed = [
        OciRepository(OciReference.parse(f"oci://{server}/acme/many:v{seed}")).push(each)
        for seed, each in enumerate(made)
    ]
    assert all(each.is_listed_by_tag for each in pushed)
    base = made[0].base
    assert base is not None
    listed = manifest(server, "acme/many", f"sha256-{base.descriptor.digest.hex}")["manifests"]
    assert {entry["digest"] for entry in listed} == {str(each.descriptor.digest) for each in pushed}
    assert {entry["artifactType"] for entry in listed} == {ARTIFACT}
    subject = manifest(server, "acme/many", "v1")["subject"]["digest"]
    assert manifest(server, "acme/many", subject)["artifactType"] == ARTIFACT


def test_a_referrer_that_another_clients_write_lost_is_listed_by_pushing_again(
    server: str, tmp_path: Path
) -> None:
    remote, made = OciRepository(OciReference.parse(f"oci://{server}/acme/lost:v1")), artifact(tmp_path)
    remote.push(made)
    assert made.base is not None
    tag = f"sha256-{made.base.descriptor.digest.hex}"
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    other = urllib.request.Request(
        f"http://{server}/v2/acme/lost/manifests/{tag}", json.dumps(index).encode(), method="PUT"
    )
    other.add_header("Content-Type", INDEX)
    urllib.request.urlopen(other).close()
    remote.push(made)
    assert [entry["digest"] for entry in manifest(server, "acme/lost", tag)["manifests"]] == [
        str(made.descriptor.digest)
    ]


def test_a_repeated_oci_push_is_identical_and_listed_once(server: str, tmp_path: Path) -> None:
    remote = OciRepository(OciReference.parse(f"oci://{server}/acme/again:v1"))
    first, second = remote.push(artifact(tmp_path)), remote.push(artifact(tmp_path))
    assert first.descriptor.digest == second.descriptor.digest
    subject = manifest(server, "acme/again", "v1")["subject"]["digest"].removeprefix("sha256:")
    assert len(manifest(server, "acme/again", f"sha256-{subject}")["manifests"]) == 1


def test_skopeo_copies_the_layout_on_disk_into_a_registry(server: str, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    write_layout(made, tmp_path / "layout", "v3")
    skopeo(
        "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:v3", f"docker://{server}/acme/copied:v3"
    )
    assert manifest(server, "acme/copied", "v3") == json.loads(made.manifest)
    assert (
        OciRepository(OciReference.parse(f"oci://{server}/acme/copied")).descriptor_of("v3").digest
        == made.descriptor.digest
    )


def test_an_existing_base_is_the_subject(server: str, tmp_path: Path) -> None:
    remote = OciRepository(OciReference.parse(f"oci://{server}/acme/own:v1"))
    base = base_artifact(fingerprint(open_checkpoint(tiny_base(tmp_path / "other", seed=5))), "org/own")
    OciRepository(OciReference.parse(f"oci://{server}/acme/own:model")).push(base)
    subject = remote.descriptor_of("model")
    remote.push(adapter_artifact(open_dir(tiny_lora(tmp_path / "lora")), subject=subject))
    assert manifest(server, "acme/own", "v1")["subject"]["digest"] == str(base.descriptor.digest)
    with pytest.raises(NotFound, match="404"):
        remote.descriptor_of("nothing")


class _NotesSubjects(BaseHTTPRequestHandler):
    """Docker's registry behind a proxy that answers like a registry with a referrers API (distribution 1.1,
    §Pushing Manifests with Subject). It has no such API itself, and no registry that has one was available.
    """

    behind = ""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.behind)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        if self.command == "PUT" and b'"subject"' in body:
            self.send_header("OCI-Subject", json.loads(body)["subject"]["digest"])
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass  # noqa: N815  # the library's names

    def log_message(self, *words: object) -> None:
        """Writes no log."""


class _WantsTokens(_NotesSubjects):
    """The same behind a token server, as at Docker Hub and GitHub (distribution's `auth/token`)."""

    def _pass(self) -> None:
        if self.path.startswith("/token?"):
            login = self.headers.get("Authorization", "").removeprefix("Basic ")
            is_known = base64.b64decode(login) == b"ann:secret" and "scope=repository" in self.path
            self._say(200 if is_known else 401, b'{"token": "good"}' if is_known else b"{}")
        elif self.headers.get("Authorization") == "Bearer good":
            super()._pass()
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            where = f"http://{self.headers['Host']}/token"
            self._say(
                401, b"{}", f'Bearer realm="{where}",service="tests",scope="repository:acme/kept:pull,push"'
            )

    def _say(self, status: int, body: bytes, challenge: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass  # noqa: N815


class _Encrypted(_NotesSubjects):
    """A proxy that reports in a header that its clients use TLS."""

    def _pass(self) -> None:
        self.headers["X-Forwarded-Proto"] = "https"
        super()._pass()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass  # noqa: N815


@contextmanager
def in_front(kind: type[_NotesSubjects], behind: str, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    handler = type("Handler", (kind,), {"behind": behind})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_tag_is_written_if_the_registry_supports_referrers(server: str, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    with in_front(_NotesSubjects, server) as address:
        pushed = OciRepository(OciReference.parse(f"oci://{address}/acme/kept:v1")).push(made)
    assert not pushed.is_listed_by_tag
    assert made.base is not None
    with pytest.raises(NotFound):
        OciRepository(OciReference.parse(f"oci://{server}/acme/kept")).descriptor_of(
            f"sha256-{made.base.descriptor.digest.hex}"
        )


def test_a_stored_login_is_used_and_a_missing_one_is_requested(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"  # of `U*U`, the first test vector of crypt_blowfish
    passwords.write_text("ann:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n")
    with running(tmp_path, f"auth: {{htpasswd: {{realm: tests, path: {passwords}}}}}") as address:
        place = OciReference.parse(f"oci://{address}/acme/tone:v1")
        with pytest.raises(Unauthenticated, match=f"docker login {address}"):
            OciRepository(place).push(artifact(tmp_path))
        with pytest.raises(Unauthenticated):
            OciRepository(place, kept_login(tmp_path, address, b"wrong")).push(artifact(tmp_path))
        assert (
            OciRepository(place, kept_login(tmp_path, address, b"U*U"))
            .push(artifact(tmp_path))
            .is_listed_by_tag
        )


def test_a_login_is_exchanged_for_a_token_if_the_registry_requires_one(server: str, tmp_path: Path) -> None:
    with in_front(_WantsTokens, server) as address:
        place = OciReference.parse(f"oci://{address}/acme/kept:tokens")
        with pytest.raises(Unauthenticated, match="returned no token"):
            OciRepository(place, kept_login(tmp_path, address, b"wrong")).push(artifact(tmp_path))
        pushed = OciRepository(place, kept_login(tmp_path, address, b"secret")).push(artifact(tmp_path))
    assert (
        OciRepository(OciReference.parse(f"oci://{server}/acme/kept")).descriptor_of("tokens").digest
        == pushed.descriptor.digest
    )


def test_an_unreachable_token_server_is_named(server: str, tmp_path: Path) -> None:
    class Elsewhere(_WantsTokens):
        def _say(self, status: int, body: bytes, challenge: str = "") -> None:
            super()._say(
                status, body, challenge and 'Bearer realm="http://127.0.0.1:9/token",service="tests"'
            )

    with (
        in_front(Elsewhere, server) as address,
        pytest.raises(Unavailable, match=r"the token server http://127\.0\.0\.1:9/token"),
    ):
        OciRepository(OciReference.parse(f"oci://{address}/acme/kept:tokens")).push(artifact(tmp_path))


def test_a_registrys_certificate_is_trusted_only_where_its_authority_was_given(
    server: str, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    with in_front(_Encrypted, server, certificate.server()) as address:
        place = OciReference(address, "acme/encrypted", "v1")
        with pytest.raises(Unavailable, match="ADAPTRY_CA_BUNDLE"):
            OciRepository(place).push(artifact(tmp_path))
        pushed = OciRepository(place, ca_bundle=str(certificate.path)).push(artifact(tmp_path))
    assert not pushed.is_listed_by_tag


def kept_login(folder: Path, address: str, password: bytes) -> Path:
    """A Docker config as `docker login` leaves it."""
    login = base64.b64encode(b"ann:" + password).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": login}}}))
    return folder / "config.json"


def test_an_oci_registry_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        OciRepository(OciReference.parse("oci://127.0.0.1:9/acme/tone")).push(artifact(tmp_path))


@pytest.mark.parametrize(
    "text", ["oci://", "oci://host", "oci://host/UPPER", "https://host/a", "oci://host/a:b:c", "oci://h/../x"]
)
def test_a_malformed_oci_location_shows_the_right_form(text: str) -> None:
    with pytest.raises(Invalid, match="oci://HOST"):
        OciReference.parse(text)


def test_plain_http_is_used_only_for_a_registry_on_this_machine() -> None:
    assert OciReference.parse("oci://ghcr.io/acme/tone").url == "https://ghcr.io/v2/acme/tone"
    assert OciReference.parse("oci://localhost:5000/acme/tone").url.startswith("http://")
    assert OciReference.parse("oci+http://inside:5000/acme/tone:v1").url == "http://inside:5000/v2/acme/tone"
