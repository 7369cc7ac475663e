"""Checks images of a README: PNG, JPEG and WebP files that are complete and contain nothing else.

A file is walked from its first byte to its last along the structure of its format, so that no other data can
be before, between or after its parts. Pixels are never decoded. PNG: W3C Portable Network
Graphics, third edition, section 5; JPEG: ITU-T T.81, annex B; WebP: RFC 9649, section 2.
"""

from __future__ import annotations

import re
import struct
import zlib

from adaptry.core.errors import Unsupported
from adaptry.core.lazy_pattern import lazy_pattern

MAX_IMAGE = 4 << 20
"""Maximum size of an image in bytes."""
MAX_IMAGES = 16
"""Maximum number of images in a version or branch."""
MAX_SIDE = 16_384
"""Maximum width and height in pixels."""

NAME = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(?:png|jpe?g|webp)", re.IGNORECASE)

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PARTS = 10_000
"""Maximum number of chunks or segments in a file: encoders write hundreds, and each costs a step in
Python."""
_MARKER = lazy_pattern(rb"\xff[^\x00\xd0-\xd7]")
_CHUNK_TYPE = lazy_pattern(rb"[A-Za-z]{4}")
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15, without DHT, JPG and DAC
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8})
_WEBP_CHUNKS = frozenset([b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "])


def is_image(path: str) -> bool:
    """Whether a file with this name, in any folder, should be an image."""
    return NAME.fullmatch(path.rpartition("/")[2]) is not None


def image_exclusion_reason(size: int) -> str | None:
    """Why an image of `size` bytes is left out; None if it is small enough."""
    return None if size <= MAX_IMAGE else f"an image of more than {MAX_IMAGE >> 20} MiB"


def check_image(path: str, data: bytes) -> None:
    """Raises `Unsupported` unless the whole of `data` is an image in the format of its file extension."""
    if reason := image_exclusion_reason(len(data)):
        raise Unsupported(f"{path} is {reason}; make it smaller or push without it")
    ending = path.rpartition(".")[2].lower()
    walk, format = {"png": (_png, "PNG"), "webp": (_webp, "WebP")}.get(ending, (_jpeg, "JPEG"))
    try:
        width, height = walk(data)
    except (_MalformedImage, struct.error, IndexError) as error:
        what = str(error) if isinstance(error, _MalformedImage) else "the file is truncated"
        raise Unsupported(
            f"{path} is not a valid {format} image ({what}); save it again with an image editor,"
            " or push without it"
        ) from None
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise Unsupported(
            f"{path} is {width} by {height} pixels; an image has at most {MAX_SIDE} a side. Make it smaller,"
            " or push without it"
        )


class _MalformedImage(Exception):
    pass


def _png(data: bytes) -> tuple[int, int]:
    if not data.startswith(_PNG):
        raise _MalformedImage("wrong signature at the beginning")
    at, size, has_data = len(_PNG), (0, 0), False
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if length > len(data) or end > len(data):
            raise _MalformedImage("the file is truncated")
        if not _CHUNK_TYPE.fullmatch(kind):
            raise _MalformedImage("invalid chunk type")
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise _MalformedImage(f"the checksum of its chunk {kind.decode()} is wrong")
        if (at == len(_PNG)) != (kind == b"IHDR"):
            raise _MalformedImage("the header is not the first chunk")
        if kind == b"IHDR":
            if length != 13:
                raise _MalformedImage("wrong header length")
            size = struct.unpack_from(">II", data, at + 8)
        has_data = has_data or kind == b"IDAT"
        at = end
        if kind == b"IEND":
            break
    else:
        raise _MalformedImage("too many parts")
    if length or not has_data:
        raise _MalformedImage("no image data")
    _require_end(data, at)
    return size


def _jpeg(data: bytes) -> tuple[int, int]:
    if not data.startswith(b"\xff\xd8\xff"):
        raise _MalformedImage("wrong signature at the beginning")
    at, size, has_scan = 2, (0, 0), False
    for _ in range(_MAX_PARTS):
        if data[at] != 0xFF:
            raise _MalformedImage("extra bytes between segments")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xD9:
            break
        if marker not in _SEGMENTS:
            raise _MalformedImage("unknown segment type")
        length = struct.unpack_from(">H", data, at + 2)[0]
        if length < 2 or at + 2 + length > len(data):
            raise _MalformedImage("the file is truncated")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + length
        if marker == 0xDA:
            has_scan = True
            at = _after_scan(data, at)
    else:
        raise _MalformedImage("too many parts")
    if not has_scan:
        raise _MalformedImage("no image data")
    _require_end(data, at + 2)
    return size


def _after_scan(data: bytes, at: int) -> int:
    """The position of the next marker after coded data, in which FF is followed by 00 or is a restart
    marker.
    """
    found = _MARKER.search(data, at)
    if found is None:
        raise _MalformedImage("the file is truncated")
    return found.start()


def _webp(data: bytes) -> tuple[int, int]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise _MalformedImage("wrong signature at the beginning")
    if struct.unpack_from("<I", data, 4)[0] != len(data) - 8:
        raise _MalformedImage("its length differs from its header")
    at, size, has_image = 12, (0, 0), False
    for _ in range(_MAX_PARTS):
        if at >= len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind not in _WEBP_CHUNKS:
            raise _MalformedImage("invalid chunk type")
        if at == 12:
            size = _webp_size(kind, data[at + 8 : at + 8 + min(length, 10)])
        has_image = has_image or kind in (b"VP8 ", b"VP8L", b"ANMF")
        at += 8 + length + length % 2
    else:
        raise _MalformedImage("too many parts")
    if not has_image:
        raise _MalformedImage("no image data")
    _require_end(data, at)
    return size


def _webp_size(kind: bytes, first: bytes) -> tuple[int, int]:
    if kind == b"VP8X":
        return int.from_bytes(first[4:7], "little") + 1, int.from_bytes(first[7:10], "little") + 1
    if kind == b"VP8L" and first[0] == 0x2F:
        bits = struct.unpack_from("<I", first, 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and first[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", first, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise _MalformedImage("the first chunk is not an image chunk")


def _require_end(data: bytes, at: int) -> None:
    if at != len(data):
        raise _MalformedImage("extra bytes after the end" if at < len(data) else "the file is truncated")
