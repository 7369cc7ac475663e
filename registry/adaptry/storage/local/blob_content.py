"""The files of a revision as an adapter's `Content`, read from a blob store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from adaptry.adapters.config import LIMITS
from adaptry.adapters.content import Content
from adaptry.adapters.formats import CONFIG, PEFT, WEIGHTS, detect_format, is_adapter_file
from adaptry.adapters.header import read_header
from adaptry.adapters.images import MAX_IMAGE, MAX_IMAGES, check_image, image_exclusion_reason, is_image
from adaptry.core import strictjson
from adaptry.core.errors import Invalid, InvalidConfig, InvalidManifest, InvalidPath, TooLarge, Unsupported
from adaptry.core.manifest import MAX_FILES, MAX_REVISION, Manifest
from adaptry.storage.blobs import BlobStore

_DANGEROUS: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint is one)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x7fELF": "a program",
    **{bytes((0x80, version)): "a pickle: loading it runs code" for version in range(1, 6)},
}


class BlobContent(Content):
    """A manifest's files; the blobs must exist."""

    def __init__(self, blobs: BlobStore, manifest: Manifest) -> None:
        self._blobs = blobs
        self._files = {entry.path: entry for entry in manifest.files}

    @property
    def sizes(self) -> Mapping[str, int]:
        return {path: entry.size for path, entry in self._files.items()}

    def read(self, path: str, offset: int, length: int) -> bytes:
        return self._blobs.read(self._files[path].sha256, offset, length)

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._blobs.chunks(self._files[path].sha256, start)

    def descriptor(self, path: str) -> AbstractContextManager[int | None]:
        return self._blobs.descriptor(self._files[path].sha256)


def check_names(manifest: Manifest) -> None:
    """Raises `InvalidPath` for a file that is not an adapter's, `Unsupported` if required files are missing,
    `InvalidManifest` if there are no files or too many.
    """
    names = [entry.path for entry in manifest.files]
    if not names:
        raise InvalidManifest("not a manifest of a version: it names no file")
    if len(names) > MAX_FILES:
        raise InvalidManifest(
            f"not a manifest of a version: it has {len(names)} files; a version has at most {MAX_FILES}"
        )
    if manifest.size > MAX_REVISION:
        raise InvalidManifest(
            f"not a manifest of a version: it has {manifest.size:,} bytes; a version has at most"
            f" {MAX_REVISION >> 30} GiB"
        )
    format = detect_format(names)
    for name in names:
        if not (format or PEFT).includes(name):
            raise InvalidPath(
                f"{name} is not a file we store with an adapter; push without it "
                f"({CONFIG}, {WEIGHTS}, README and its images, licence and tokenizer files are stored)"
            )
    if format is None:
        missing = WEIGHTS if CONFIG in names else CONFIG
        raise Unsupported(f"a revision needs {CONFIG} and {WEIGHTS}; {missing} is missing")


def check_draft(manifest: Manifest, *, with_folders: bool) -> None:
    """Like `check_names`, for a tree that need not be an adapter yet, and may contain adapters in
    subfolders.
    """
    top = tuple(entry for entry in manifest.files if "/" not in entry.path)
    if detect_format(entry.path for entry in top):
        check_names(manifest.model_copy(update={"files": top}))
    for entry in manifest.files:
        if not is_adapter_file(entry.path):
            raise InvalidPath(
                f"{entry.path} is not a file of an adapter; commit without it (configs, safetensors of"
                " adapters, README and its images, licence and tokenizer files are stored)"
            )
        if entry not in top and not with_folders:
            raise InvalidPath(
                f"{entry.path} is in a folder, and a version has no folders; commit checkpoints to a branch"
            )


def check_content(content: Content) -> None:
    """Raises `InvalidWeights` and `InvalidConfig` for files that readers must not get, and the errors of
    `check_first_bytes`.

    The files need not be an adapter.
    """
    check_first_bytes(content)
    for path, size in content.sizes.items():
        if path.endswith(".safetensors"):
            read_header(content.reader(path), size, path)
        if path.rpartition("/")[2] == CONFIG:
            try:
                strictjson.loads(content.read_all(path, LIMITS.size), LIMITS, path)
            except Invalid as error:
                raise InvalidConfig(error.message) from None


def check_images(content: Content) -> None:
    """Raises `Unsupported` for a malformed image, and `TooLarge` for too many."""
    images = [path for path in content.sizes if is_image(path)]
    if len(images) > MAX_IMAGES:
        raise TooLarge(
            f"{len(images)} images; at most {MAX_IMAGES} are stored beside an adapter, for its README"
        )
    for path in images:
        if content.sizes[path] > MAX_IMAGE:
            raise TooLarge(
                f"{path} is {image_exclusion_reason(content.sizes[path])}; make it smaller or push without it"
            )
        check_image(path, content.read_all(path, MAX_IMAGE))


def check_first_bytes(content: Content) -> None:
    """Raises `Unsupported` for a dangerous file with a misleading name; and the errors of `check_images`."""
    check_images(content)
    for path in content.sizes:
        first = content.read(path, 0, 9)
        # A safetensors file begins with its header's length, which may match any pattern; then follows a
        # brace.
        if path.endswith(".safetensors") and first[8:] == b"{":
            continue
        for signature, what in _DANGEROUS.items():
            if first.startswith(signature):
                raise Unsupported(f"{path} is {what}, despite its name; only plain files are stored")
