"""Blob stores: immutable bytes, addressed by digest.

A store promises: a published blob is complete and immediately readable; no reader sees a part of a blob;
publishing an existing blob is harmless; deleting a missing one is not an error. Bytes are verified here,
once, before they are published. The catalog knows who owns them and who may read them.
"""

from adaptry.storage.blobs.store import BlobStore, StagedBlob

__all__ = ["BlobStore", "StagedBlob"]
