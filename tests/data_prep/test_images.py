"""Images: what passes through untouched, what is converted and how, what is refused before a pixel is decoded."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

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
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 1000) + b"IDAT" + b"\x00" * 50


def flat(*size: int) -> bytes:
    return encoded(Image.new("RGB", size, (9, 9, 9)))


REFUSED = [
    ("no bytes", b"", "a.png", "empty_image"),
    ("no image", b"<html>not found</html>", "a.jpg", "unknown_image_format"),
    ("a bomb", png_claiming(60000, 60000), "a.png", "image_too_large"),
    ("a bomb beyond Pillow's own bound", png_claiming(2**30, 2**30), "a.png", "image_too_large"),
    ("header only", png_claiming(10, 10), "a.png", "damaged_image"),
    ("too narrow", flat(1, 201), "a.png", "image_too_narrow"),
    # 7790 x 41 has a ratio of 190; fetch_image makes 7784 x 28 of it, which is 278, and the processor raises.
    ("too narrow after a later resize", flat(7790, 41), "a.png", "image_too_narrow"),
    ("the same upright", flat(41, 7790), "a.png", "image_too_narrow"),
    ("30 high", flat(5700, 30), "a.png", "image_too_narrow"),
    ("1 high", flat(201, 1), "a.png", "image_too_narrow"),
    ("a volume", bytes(344) + b"n+1\x00" + bytes(100), "a.nii", "volume"),
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


def test_one_infinite_value_does_not_make_a_float_picture_black() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1] = np.inf, np.nan
    pixels = decoded(prepare_image(encoded(Image.fromarray(values), "TIFF"), "a.tif", ANY).data)
    assert pixels[7, 7].tolist() == [255, 255, 255]
    assert 120 < pixels[4, 0, 0] < 140  # 32/63 of the range from 2/63
    assert pixels[0, 0].tolist() == [255, 255, 255]  # shown as the largest
    with pytest.raises(Unfit, match="finite"):
        prepare_image(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "a.tif", ANY)


@pytest.mark.engine
def test_what_is_kept_passes_the_real_resizes() -> None:
    from qwen_vl_utils.vision_process import smart_resize as fetch
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    from data_prep.images import _check_size

    rng = np.random.default_rng(0)
    for width, height in (2 ** rng.uniform(0, 13, (20_000, 2))).astype(int).tolist():
        try:
            _check_size((width, height))
        except Unfit:
            continue
        for factor in (28, 32):
            smart_resize(*fetch(height, width, factor), factor, 3136, 12845056)


def test_a_wrong_checksum_is_damage_in_every_mode() -> None:
    for mode in ("RGB", "RGBA", "L", "LA"):
        data = bytearray(encoded(Image.effect_noise((64, 64), 90).convert(mode)))
        place = data.index(b"IDAT") + 2000
        data[place : place + 40] = bytes(40)
        with pytest.raises(Unfit, match="damaged_image"):
            prepare_image(bytes(data), "a.png", ANY)


def test_a_jpeg_cut_in_half_with_an_end_marker_is_damage_and_grey_borders_are_not() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    for form in ("noise", "grey below"):
        if form == "grey below":
            noise[40:] = 128
        data = encoded(Image.fromarray(noise), "JPEG", quality=90)
        assert prepare_image(data, "a.jpg", ANY).action == "kept"
    half = data[: data.rindex(b"\xff\xda") + 2000] + b"\xff\xd9"
    with pytest.raises(Unfit, match="before the last row"):
        prepare_image(half, "a.jpg", ANY)


@pytest.mark.parametrize("options", [{"progressive": True}, {}, {"restart_marker_blocks": 3}], ids=str)
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_a_jpeg_cut_anywhere_with_an_end_marker_is_damage(options: dict[str, Any], share: float) -> None:
    """Progressive ones lack whole scans, or the end of one; restart markers end the noise that tells it."""
    noise = np.random.default_rng(1).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=90, **options)
    assert prepare_image(data, "a.jpg", ANY).action == "kept"
    first = data.index(b"\xff\xda")
    cut = data[: first + int(share * (len(data) - first))].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(Unfit, match="damaged_image"):
        prepare_image(cut, "a.jpg", ANY)


def test_a_jpeg_of_thousands_of_scans_is_not_decoded() -> None:
    """Its scans are small, and the decoder reads all of them in one call: the time limit came after two minutes."""
    data = encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(Unfit, match="image_too_costly"):
        prepare_image(data[:-2] + last * 3000 + b"\xff\xd9", "a.jpg", ANY)


@pytest.mark.slow
def test_a_picture_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.images.MAX_SECONDS", 1.0)
    plain = b"P3\n4000 4000\n255\n" + b"7 " * (3 * 4000 * 4000)
    start = time.monotonic()
    with pytest.raises(Unfit, match="image_too_costly"):
        prepare_image(plain, "a.ppm", ANY)
    assert time.monotonic() - start < 8
