"""A server derives the data of adapters of very many tensors in another process, with the same result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.operations.transfer.drafts import push_draft
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.interface import Registry
from adaptry.storage import derivation_process
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
LAYERS = 2500
"""Enough for a header of more than 1 MiB."""
KEY = "base_model.model.model.layers.7.self_attn.q_proj.lora_B.weight"
SPOILED = {KEY: ("F32", (4, 1), b"\x00\x00\xc0\x7f" * 4)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(ServerSettings(data=tmp_path_factory.mktemp("served") / "data")) as made:
        yield made


@pytest.fixture(scope="module")
def sent_whole(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return open_dir(tiny_lora(tmp_path_factory.mktemp("small"), layers=LAYERS, hidden=4, rank=1))


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return open_dir(tiny_lora(tmp_path_factory.mktemp("large"), layers=LAYERS, hidden=256, rank=1))


@pytest.mark.parametrize("kind", ["sent_whole", "uploaded"])
def test_a_server_stores_the_same_data_as_a_program(
    server: Server, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    adapter, name = request.getfixturevalue(kind), f"acme/{kind.replace('_', '-')}"
    remote = server.registry()
    with open_local(tmp_path / "registry") as embedded:
        assert stored(remote, adapter, name) == stored(embedded, adapter, name)
    assert remote.versions.detail(Ref.parse(name)).spec == adapter.spec


def stored(registry: Registry, adapter: Adapter, name: str) -> tuple[object, ...]:
    pushed = push(registry, adapter, name)
    ref = Ref.parse(name)
    detail, tensors = registry.versions.detail(ref), registry.versions.inspect_tensors(ref, limit=50).items
    return pushed.report, pushed.version.weights, detail.spec, detail.report, detail.inspection, tensors


def test_a_commit_of_many_tensors_makes_a_version(server: Server, sent_whole: Adapter) -> None:
    remote, name = server.registry(), AdapterName.parse("acme/committed")
    made = push_draft(remote, sent_whole, name, "main", CommitNote(title="all of it"))
    assert made.number == 1
    assert remote.versions.detail(Ref(name)).spec == sent_whole.spec


def test_an_adapter_of_many_tensors_is_refused_for_nan(server: Server, tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path / "spoiled", layers=LAYERS, hidden=4, rank=1, extra=SPOILED)
    with pytest.raises(CheckFailed, match=r"NaN in 1 tensor.*weights_nan"):
        push(server.registry(), open_dir(folder), TONE)


def test_without_a_process_a_push_can_be_repeated(
    server: Server, uploaded: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/bin/false")
        with pytest.raises(Unavailable, match=r"ended with code 1.*push it again"):
            push(server.registry(), uploaded, TONE, retry=RetryPolicy(tries=1, first_wait=0.0))
    assert push(server.registry(), uploaded, TONE).version.number == 1


@pytest.mark.heavy  # a quarter of a minute
def test_a_process_that_hangs_is_ended(
    server: Server, uploaded: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec tail -f /dev/null\n")
    hanging.chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(hanging))
        patched.setattr(derivation_process, "_READ_TIMEOUT", 3.0)
        with pytest.raises(Unavailable, match=r"did not answer.*push it again"):
            push(server.registry(), uploaded, "acme/hung", retry=RetryPolicy(tries=1, first_wait=0.0))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert push(server.registry(), uploaded, "acme/hung").version.number == 1
