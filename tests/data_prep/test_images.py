"""Images: what passes through untouched, what is converted and how, what is refused before a pixel is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.images import ImagePolicy, fit, prepare_image
from data_prep.records import Unfit

ANY = ImagePolicy(0, 10**9)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(("form", "name"), [("PNG", "a.png"), ("JPEG", "a.jpg"), ("JPEG", ""), ("PNG", "IM0001")])
def test_a_fine_image_keeps_its_bytes(form: str, name: str, picture: Callable[..., bytes]) -> None:
    data = picture(form=form)
    prepared = prepare_image(data, name, ANY)
    assert prepared.data == data
    assert prepared.action == "kept"
    assert (prepared.width, prepared.height) == (48, 40)


def test_transparent_pixels_become_white() -> None:
    image = Image.new("RGBA", (4, 2), (200, 0, 0, 0))
    image.putpixel((0, 0), (10, 20, 30, 255))
    pixels = decoded(prepare_image(encoded(image), "a.png", ANY).data)
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[1, 3].tolist() == [255, 255, 255]


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    grey = np.array([[1000, 1500, 2000]], dtype=np.uint16)
    pixels = decoded(prepare_image(encoded(Image.fromarray(grey)), "a.png", ANY).data)
    # (1500 - 1000) / (2000 - 1000) * 255 = 127.5, which rint takes to the even 128.
    assert pixels[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_palette_and_grey_become_rgb() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    cases = {
        "cmyk": (red.convert("CMYK"), "JPEG"),
        "palette": (red.convert("P"), "PNG"),
        "grey": (red.convert("L"), "PNG"),
    }
    for name, (image, form) in cases.items():
        prepared = prepare_image(encoded(image, form), "", ANY)
        expected = [76, 76, 76] if name == "grey" else [255, 0, 0]  # 0.299 * 255 = 76.2
        assert np.abs(decoded(prepared.data)[4, 4] - np.array(expected)).max() <= 3, name
        assert prepared.action == "converted", name


def test_a_palette_with_a_transparent_entry_becomes_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 0, 255, 0])
    pixels = decoded(prepare_image(encoded(image, transparency=0), "", ANY).data)
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the left half is the top half
    prepared = prepare_image(encoded(image, "JPEG", exif=exif, quality=95), "a.jpg", ANY)
    pixels = decoded(prepared.data)
    assert pixels.shape == (40, 20, 3)
    assert pixels[:16].mean() > 240
    assert pixels[24:].mean() < 15
    assert "oriented" in prepared.action


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that are not there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 1000) + b"IDAT" + b"\x00" * 50


REFUSED = [
    ("no bytes", b"", "a.png", "empty_image"),
    ("no image", b"<html>not found</html>", "a.jpg", "unknown_image_format"),
    ("a bomb", png_claiming(60000, 60000), "a.png", "image_too_large"),
    ("a bomb beyond Pillow's own bound", png_claiming(2**30, 2**30), "a.png", "image_too_large"),
    ("header only", png_claiming(10, 10), "a.png", "damaged_image"),
    ("too narrow", encoded(Image.new("RGB", (1, 201))), "a.png", "image_too_narrow"),
    ("JPEG called PNG", encoded(Image.new("RGB", (9, 9)), "JPEG"), "a.png", "wrong_extension"),
    ("cut off", encoded(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")[:900], "a.jpg", "damaged_image"),
]


@pytest.mark.parametrize(("case", "data", "name", "reason"), REFUSED, ids=[case for case, *_ in REFUSED])
def test_refused(case: str, data: bytes, name: str, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        prepare_image(data, name, ANY)
    assert caught.value.reason == reason


@given(st.binary(max_size=400))
def test_any_bytes_are_an_image_or_unfit(data: bytes) -> None:
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\x00", b"RIFF....WEBP"):
        try:
            prepared = prepare_image(prefix + data, "", ANY)
        except Unfit:
            continue
        assert prepared.pixels.mode == "RGB"


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_area_keeps_to_the_policy(width: int, height: int) -> None:
    policy = ImagePolicy(10_000, 1_000_000)
    new = fit((width, height), policy)
    area = new[0] * new[1]
    assert area <= policy.max_pixels or min(new) == 1
    assert area >= policy.min_pixels
    if policy.min_pixels <= width * height <= policy.max_pixels:
        assert new == (width, height)


def test_a_resized_image_says_so(picture: Callable[..., bytes]) -> None:
    prepared = prepare_image(picture(size=(200, 100)), "", ImagePolicy(0, 5000))
    assert prepared.action == "converted+resized" or prepared.action == "resized"
    assert (prepared.width, prepared.height) == (100, 50)
