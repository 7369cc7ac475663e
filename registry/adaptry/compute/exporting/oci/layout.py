"""Writes an artifact as an OCI image layout: blobs by digest, which `skopeo`, `oras` and others can copy."""

from __future__ import annotations

import json
from pathlib import Path

from adaptry.compute.exporting.oci.artifact import INDEX, Artifact, Blob

REF = "org.opencontainers.image.ref.name"


def write_layout(artifact: Artifact, folder: Path, tag: str) -> None:
    """Writes into an empty folder that the caller manages; `tag` names the adapter's manifest in the
    index.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    entries = []
    for each, name in ((artifact, tag), (artifact.base, "base")):
        if each is None:
            continue
        for blob in each.blobs:
            _write(blob, blobs)
        (blobs / each.descriptor.digest.hex).write_bytes(each.manifest)
        entry = each.descriptor.as_json()
        entry["annotations"] = {**entry.get("annotations", {}), REF: name}
        entries.append(entry)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    (folder / "index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")


def _write(blob: Blob, folder: Path) -> None:
    place = folder / blob.descriptor.digest.hex
    if place.exists():
        return
    with place.open("xb") as file:
        file.writelines(blob.chunks())
