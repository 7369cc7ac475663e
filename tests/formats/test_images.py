"""A README's images: complete files of the three formats are accepted, and truncated or disguised ones are
not.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from adaptry.adapters.folder_listing import list_folder
from adaptry.adapters.images import MAX_IMAGE, MAX_IMAGES, check_image, is_image
from adaptry.core.errors import Unsupported
from adaptry.testing.samples import tiny_lora

Save = Callable[[], bytes]


def saved(format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: object) -> bytes:
    """An image as Pillow writes it."""
    data = io.BytesIO()
    image = Image.effect_noise(size, 60).convert(mode)
    image.save(data, format, **options)  # type: ignore[arg-type]  # options of each format
    return data.getvalue()


def moving(format: str) -> bytes:
    """A short animation."""
    data = io.BytesIO()
    frames = [Image.effect_noise((20, 20), 60).convert("RGB") for _ in range(3)]
    frames[0].save(data, format, save_all=True, append_images=frames[1:], duration=50)
    return data.getvalue()


GOOD = {
    "plain.png": lambda: saved("PNG"),
    "grey.PNG": lambda: saved("PNG", mode="L", optimize=True),
    "see-through.png": lambda: saved("PNG", mode="RGBA"),
    "moving.png": lambda: moving("PNG"),
    "plain.jpg": lambda: saved("JPEG"),
    "progressive.jpeg": lambda: saved("JPEG", progressive=True, quality=95),
    "restarts.jpg": lambda: saved("JPEG", restart_marker_blocks=1),
    "commented.jpg": lambda: saved("JPEG", comment=b"<script>", exif=Image.Exif().tobytes()),
    "lossy.webp": lambda: saved("WEBP"),
    "lossless.webp": lambda: saved("WEBP", lossless=True),
    "alpha.webp": lambda: saved("WEBP", mode="RGBA"),
    "moving.webp": lambda: moving("WEBP"),
}


@pytest.mark.parametrize("name", GOOD)
def test_complete_images_are_accepted(name: str) -> None:
    assert is_image(name)
    check_image(name, GOOD[name]())


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "more", [b"\0", b"<html><script>alert(1)</script>", b"PK\x03\x04" + b"\0" * 40, b"\x80\x04."], ids=repr
)
def test_an_image_with_trailing_bytes_is_refused(name: str, more: bytes) -> None:
    with pytest.raises(Unsupported, match="is not a valid"):
        check_image(name, GOOD[name]() + more)


@pytest.mark.parametrize("name", GOOD)
def test_a_truncated_image_is_refused(name: str) -> None:
    whole = GOOD[name]()
    for end in sorted({*range(60), *range(0, len(whole), 37), len(whole) - 1}):
        with pytest.raises(Unsupported):
            check_image(name, whole[:end])


@pytest.mark.parametrize("name", GOOD)
def test_one_format_under_the_name_of_another_is_refused(name: str) -> None:
    ending = "jpg" if name.lower().endswith("png") else "png"
    with pytest.raises(Unsupported, match="wrong signature"):
        check_image(f"x.{ending}", GOOD[name]())


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


HEADER = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
PIXELS, END = (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")


def bad() -> Iterator[tuple[str, bytes]]:
    yield "page.png", b"<html></html>"
    yield "only-magic.png", b"\x89PNG\r\n\x1a\n<html><script>alert(1)</script>"
    yield "only-magic.jpg", b"\xff\xd8\xff<html><script>alert(1)</script>"
    yield "only-magic.webp", b"RIFF\x0c\0\0\0WEBPhtml"
    yield "no-pixels.png", png(HEADER, END)
    yield "two-headers.png", png(HEADER, HEADER, PIXELS, END)
    yield "no-header.png", png(PIXELS, END)
    yield "no-end.png", png(HEADER, PIXELS)
    yield "odd-chunk.png", png(HEADER, (b"<ht>", b""), PIXELS, END)
    yield "wrong-sum.png", png(HEADER, PIXELS, END)[:-1] + b"\0"
    yield "huge.png", png((b"IHDR", struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 0, 0, 0, 0)), PIXELS, END)
    yield "flat.png", png((b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 0, 0, 0, 0)), PIXELS, END)
    yield "endless.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0xFFFFFFFF) + b"IHDR"
    yield "large.png", png(HEADER, (b"tEXt", b"x" * MAX_IMAGE), PIXELS, END)
    yield "no-scan.jpg", b"\xff\xd8\xff\xd9"
    yield "filled.jpg", b"\xff\xd8" + b"\xff" * 1000
    yield "inner-page.webp", _riff(b"VP8 ", saved("WEBP")[20:30], (b"html", b"<script>"))
    yield "empty.png", b""
    yield "many-parts.png", png(HEADER, *[(b"tEXt", b"")] * 20_000, PIXELS, END)
    yield "many-parts.jpg", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 20_000 + saved("JPEG")[2:]
    yield "many-parts.webp", _riff(b"VP8 ", saved("WEBP")[20:], *[(b"EXIF", b"")] * 20_000)


def _riff(kind: bytes, first: bytes, *more: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        each + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for each, data in ((kind, first), *more)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize(
    ("name", "data"), tuple(bad()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_file_that_is_not_an_image_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(Unsupported):
        check_image(name, data)


@pytest.mark.parametrize("name", ["x.svg", "x.html", "x.gif", "x.png.html", ".png", "png", "x.tiff"])
def test_files_with_other_names_are_not_images(name: str) -> None:
    assert not is_image(name)


def test_a_folders_images_are_kept_up_to_the_limits_and_others_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    folder = tiny_lora(tmp_path / "tone")
    for number in range(MAX_IMAGES + 1):
        (folder / f"image-{number:02}.png").write_bytes(saved("PNG", (4, 4)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff<html>")
    listing = list_folder(folder)
    assert sum(map(is_image, listing.kept)) == MAX_IMAGES
    assert "not a valid JPEG image" in listing.left_out["broken.jpg"]
    assert listing.left_out[f"image-{MAX_IMAGES:02}.png"] == f"more than {MAX_IMAGES} images"
