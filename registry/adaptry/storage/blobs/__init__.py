"""Blob stores: immutable bytes, addressed by digest.

A store promises: what is published is whole and readable at once; nobody sees half a blob; publishing what
is there is harmless; deleting what is absent is no error. Bytes are verified here, once, before they are
published. Whose they are and who may read them is for the catalog to know.
"""

from adaptry.storage.blobs.store import BlobStore, StagedBlob

__all__ = ["BlobStore", "StagedBlob"]
