"""A backup as described in docs/deploying.md, taken during pushes, is a complete registry."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import boto3

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.blobs.s3 import S3Location
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer, programs
from adaptry.testing.samples import tiny_lora
from adaptry.testing.seaweed import Seaweed
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

TONE = AdapterName.parse("acme/tone")


def copy_bucket(source: str, target: str, endpoint: str) -> None:
    """Copies every object below one prefix to another, like `aws s3 sync`."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    here, there = S3Location.parse(source), S3Location.parse(target)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=here.bucket, Prefix=here.prefix):
        for item in page.get("Contents", ()):
            key = there.prefix + item["Key"].removeprefix(here.prefix)
            body = client.get_object(Bucket=here.bucket, Key=item["Key"])["Body"].read()
            client.put_object(Bucket=there.bucket, Key=key, Body=body)


def test_backing_up_rows_before_bytes_gives_a_complete_copy(
    postgres: PostgresServer, s3_place: str, seaweed: Seaweed, tmp_path: Path
) -> None:
    found = programs()
    assert found
    database, copy = postgres.create_migrated(), postgres.create_empty()
    settings = ServerSettings(data=tmp_path / "data", catalog=postgres.url(database), blobs=s3_place)
    with running_server(settings) as server:
        push(server.registry(), open_dir(tiny_lora(tmp_path / "first", seed=1)), TONE)
        dump = subprocess.run(
            [str(found / "pg_dump"), "--format=custom", postgres.url(database)],
            capture_output=True,
            check=True,
        ).stdout
        push(server.registry(), open_dir(tiny_lora(tmp_path / "second", seed=2)), TONE)  # meanwhile
        elsewhere = seaweed.new_location()
        copy_bucket(s3_place, elsewhere, seaweed.endpoint)
        token = server.admin
    subprocess.run(
        [str(found / "pg_restore"), "--dbname", postgres.url(copy), "--exit-on-error"], input=dump, check=True
    )
    restored = replace(settings, data=tmp_path / "new", catalog=postgres.url(copy), blobs=elsewhere)
    with running_server(restored) as server:
        registry = HttpRegistry(server.url, token)
        assert [version.number for version in registry.versions.list(TONE).items] == [1]
        pull(registry, Ref.parse("acme/tone@1"), tmp_path / "pulled")
        assert push(registry, open_dir(tiny_lora(tmp_path / "third", seed=3)), TONE).version.number == 2
    local = open_local(tmp_path / "new", catalog=postgres.url(copy))
    try:
        assert verify(local.catalog, local.blobs) == ()
    finally:
        local.close()
