"""Pushes the files of a folder with the client that openapi-python-client generated, finds and promotes them.

python use.py URL TOKEN FOLDER        (the client is the package `client` beside the current folder)
"""

import base64
import hashlib
import json
import sys
from io import BytesIO
from pathlib import Path

from client import AuthenticatedClient, models
from client.api.aliases import get_alias, move_alias
from client.api.revisions import push_version
from client.api.search import search_versions
from client.api.uploads import append_to_upload, finish_upload, open_adapter_upload
from client.types import File

ADAPTER = {"namespace": "acme", "name": "tone"}


def main(url: str, token: str, folder: Path) -> None:
    client = AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)
    files = [send(client, path) for path in sorted(folder.iterdir())]
    manifest = json.dumps({"files": files, "schema": 1}, sort_keys=True, separators=(",", ":")).encode()
    request = models.PushRequest(
        manifest=base64.b64encode(manifest).decode(),
        options=models.PushOptions(metrics=models.PushOptionsMetrics.from_dict({"accuracy": 0.9})),
    )
    pushed = push_version.sync(client=client, body=request, **ADAPTER)
    assert isinstance(pushed, models.PushResult), pushed
    found = search_versions.sync(client=client, q="metric.accuracy>0.8")
    assert isinstance(found, models.VersionInfoPage), found
    digest = found.items[0].digest
    assert digest == pushed.version.digest
    move = models.AliasMoveRequest(to=digest)
    moved = move_alias.sync(client=client, alias="prod", body=move, if_none_match="*", **ADAPTER)
    assert isinstance(moved, models.AliasInfo), moved
    stale = move_alias.sync(client=client, alias="prod", body=move, if_match='"7"', **ADAPTER)
    assert isinstance(stale, models.Problem), stale
    alias = get_alias.sync(client=client, alias="prod", **ADAPTER)
    assert isinstance(alias, models.AliasInfo), alias
    print(alias.digest, stale.code)


def send(client: AuthenticatedClient, path: Path) -> dict[str, object]:
    data = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    request = models.UploadOpenRequest(digest=digest, size=len(data))
    upload = open_adapter_upload.sync(client=client, body=request, **ADAPTER)
    assert isinstance(upload, models.UploadInfo), upload
    sent = append_to_upload.sync(
        upload.id, client=client, body=File(BytesIO(data)), upload_offset=0, upload_size=len(data)
    )
    assert isinstance(sent, models.UploadInfo), sent
    done = models.UploadFinishRequest(offset=len(data), size=len(data))
    assert finish_upload.sync_detailed(upload.id, client=client, body=done).status_code == 204
    return {"path": path.name, "sha256": digest, "size": len(data)}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
