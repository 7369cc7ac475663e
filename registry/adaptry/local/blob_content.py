"""The files of a revision as an adapter's `Content`, read from a blob store."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapter.content import Content
from adaptry.adapter.formats import CONFIG, PEFT, WEIGHTS, format_of
from adaptry.blobs import BlobStore
from adaptry.errors import InvalidPath, Unsupported
from adaptry.manifest import Manifest

_DANGEROUS: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint is one)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x7fELF": "a program",
    **{bytes((0x80, version)): "a pickle: loading it runs code" for version in range(1, 6)},
}


class BlobContent(Content):
    """A manifest's files; the blobs must be there."""

    def __init__(self, blobs: BlobStore, manifest: Manifest) -> None:
        self._blobs = blobs
        self._files = {entry.path: entry for entry in manifest.files}

    @property
    def sizes(self) -> Mapping[str, int]:
        return {path: entry.size for path, entry in self._files.items()}

    def read(self, path: str, offset: int, length: int) -> bytes:
        return self._blobs.read(self._files[path].sha256, offset, length)


def check_names(manifest: Manifest) -> None:
    """Raises `InvalidPath` for a file that is not one of an adapter's, `Unsupported` where those that make one are
    missing."""
    names = [entry.path for entry in manifest.files]
    format = format_of(names)
    for name in names:
        if not (format or PEFT).keeps(name):
            raise InvalidPath(
                f"{name} is not a file we store with an adapter; push without it "
                f"({CONFIG}, {WEIGHTS}, README, licence and tokenizer files are stored)"
            )
    if format is None:
        missing = WEIGHTS if CONFIG in names else CONFIG
        raise Unsupported(f"a revision needs {CONFIG} and {WEIGHTS}; {missing} is missing")


def check_first_bytes(content: Content) -> None:
    """Raises `Unsupported` for a file that is something else than its name says, and dangerous."""
    for path in content.sizes:
        first = content.read(path, 0, 9)
        # A safetensors file begins with its header's length, which may look like anything; then comes a brace.
        if path.endswith(".safetensors") and first[8:] == b"{":
            continue
        for signature, what in _DANGEROUS.items():
            if first.startswith(signature):
                raise Unsupported(f"{path} is {what}, whatever its name; only plain files are stored")
