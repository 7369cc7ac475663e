"""An artifact as a value: a manifest, a config and files, each by its digest. Equal adapters have equal
digests.

A base has a separate small manifest with its identity, so that adapters have a `subject` even if the model
itself is not in that registry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
_WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
_SETTINGS = "application/vnd.cncf.model.weight.config.v1.raw"
_DOCUMENT = "application/vnd.cncf.model.doc.v1.raw"
_FILE_PATH = "org.cncf.model.filepath"
_TITLE = "org.opencontainers.image.title"
_PRECISION = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}

Json = dict[str, Any]
"""(`Any`: JSON, of several shapes.)"""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An OCI descriptor: a reference to a blob or manifest."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> Json:
        found: Json = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        return found


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with their descriptor, read again each time."""

    descriptor: Descriptor
    chunks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Artifact:
    """`manifest` as bytes; `blobs` are its config and layers; `subject` is the manifest that it refers to,
    with its artifact if we created that too.
    """

    manifest: bytes
    blobs: tuple[Blob, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None = None
    base: Artifact | None = None

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(
            MANIFEST,
            Digest.of(self.manifest),
            len(self.manifest),
            artifact_type=ARTIFACT,
            annotations=self.annotations,
        )


def base_artifact(record: BaseRecord, name: str | None) -> Artifact:
    """The manifest of a base: its id by content, and the facts of its config."""
    facts = _json(
        {"id": str(record.id), "name": name, "facts": record.facts, "parameters": record.parameters}
    )
    layer = _blob(facts, _SETTINGS, {_FILE_PATH: "base.json", _TITLE: "base.json"})
    descriptor = {"name": name} if name else {}
    family = str(record.facts.get("model_type") or "")
    config = {
        "descriptor": {**descriptor, **({"family": family} if family else {})},
        "config": {"format": "safetensors"},
    }
    return _artifact(config, (layer,), {"adaptry.base.id": str(record.id), **_named(name)}, None, None)


def adapter_artifact(
    adapter: Adapter,
    *,
    name: str | None = None,
    revision: Digest | None = None,
    base: Artifact | None = None,
    subject: Descriptor | None = None,
) -> Artifact:
    """The manifest of an adapter, with its files as layers. It refers to `subject`, else to `base`."""
    layers = tuple(_file(adapter, path) for path in adapter.content.sizes)
    dtypes = {_PRECISION.get(dtype, "mixed") for dtype in adapter.spec.dtypes}
    settings = {
        "format": "safetensors",
        "paramSize": _size(adapter.spec.parameters),
        "precision": dtypes.pop() if len(dtypes) == 1 else "mixed",
    }
    descriptor = {key: value for key, value in (("name", name), ("revision", str(revision or ""))) if value}
    annotations = {"adaptry.method": adapter.spec.method, "adaptry.layout": adapter.format.name}
    if revision:
        annotations["adaptry.revision"] = str(revision)
    if base:
        annotations |= base.annotations
    config = {"descriptor": descriptor, "config": settings}
    return _artifact(config, layers, annotations, subject or (base.descriptor if base else None), base)


def _artifact(
    config: Json,
    layers: tuple[Blob, ...],
    annotations: Mapping[str, str],
    subject: Descriptor | None,
    base: Artifact | None,
) -> Artifact:
    modelfs = {"type": "layers", "diffIds": [str(layer.descriptor.digest) for layer in layers]}
    settings = _blob(_json({**config, "modelfs": modelfs}), CONFIG)
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": settings.descriptor.as_json(),
        "layers": [layer.descriptor.as_json() for layer in layers],
        "annotations": dict(sorted(annotations.items())),
    }
    if subject:
        bare = Descriptor(subject.media_type, subject.digest, subject.size)
        manifest["subject"] = bare.as_json()
    return Artifact(_json(manifest), (settings, *layers), annotations, subject, base)


def _file(adapter: Adapter, path: str) -> Blob:
    hasher = hashlib.sha256()
    for chunk in adapter.content.chunks(path):
        hasher.update(chunk)
    kind = (
        _WEIGHTS
        if path.endswith(".safetensors")
        else _DOCUMENT
        if path.endswith((".md", "LICENSE"))
        else _SETTINGS
    )
    descriptor = Descriptor(
        kind,
        Digest(hasher.hexdigest()),
        adapter.content.sizes[path],
        annotations={_FILE_PATH: path, _TITLE: path},
    )
    return Blob(descriptor, lambda: adapter.content.chunks(path))


def _blob(data: bytes, media_type: str, annotations: Mapping[str, str] = {}) -> Blob:
    return Blob(
        Descriptor(media_type, Digest.of(data), len(data), annotations=annotations), lambda: iter([data])
    )


def _json(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _named(name: str | None) -> dict[str, str]:
    return {"adaptry.base.name": name} if name else {}


def _size(parameters: int) -> str:
    """A number in ModelPack's form, with at most one decimal and a unit: `1.2m`."""
    for letter, order in (("b", 10**9), ("m", 10**6), ("k", 10**3)):
        if parameters >= order:
            return f"{parameters / order:.1f}{letter}"
    return f"{parameters / 1000:.1f}k"
