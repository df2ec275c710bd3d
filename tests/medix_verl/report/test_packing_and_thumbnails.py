"""What the page carries: pictures judged by their header, all of it bounded, and nothing from outside of the run."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from medix_verl.report import page
from medix_verl.report import thumbnails as pictures
from medix_verl.report.page import pack_rollouts, spread_out
from medix_verl.report.run_folder import load_run
from medix_verl.report.thumbnails import thumbnail, thumbnails


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels, with next to nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16", "1"])
def test_a_thumbnail_keeps_the_shape(mode: str) -> None:
    uri = thumbnail(png(400, 200, mode), 100)
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        assert (image.format, image.size) == ("JPEG", (100, 50))


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"<svg onload=x>", bomb(), png(400, 200)[:60]], ids=["empty", "gif", "svg", "bomb", "cut"]
)
def test_what_is_no_fit_picture_has_none(data: bytes) -> None:
    assert thumbnail(data, 100) is None


def test_the_samples_of_the_rollouts_have_theirs(synthetic_run: Path) -> None:
    run = load_run(synthetic_run)
    found = thumbnails(run)
    assert set(found) == {group.sample_id for group in run.groups}
    assert all(uri.startswith("data:image/jpeg;base64,") for uris in found.values() for uri in uris)


@pytest.mark.parametrize("way", ["named in the configuration", "a link"])
def test_data_outside_of_the_run_are_shown_only_if_they_are_named_on_the_command(
    synthetic_run: Path, tmp_path: Path, way: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(synthetic_run / "data", elsewhere)
    if way == "a link":
        (synthetic_run / "data").symlink_to(elsewhere)
    else:
        config = synthetic_run / "config.yaml"
        config.write_text(config.read_text().replace("data/train.parquet", str(elsewhere / "train.parquet")))
    run = load_run(synthetic_run)
    assert thumbnails(run) == {}
    assert "--data" in run.notes[-1]
    assert thumbnails(load_run(synthetic_run), elsewhere)


def test_a_full_page_leaves_pictures_out_and_says_so(synthetic_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_IMAGE_BYTES", 2500)
    run = load_run(synthetic_run)
    assert 0 < len(thumbnails(run)) < 15
    assert "left out to keep the page small" in run.notes[-1]


def test_an_unreadable_parquet_file_is_a_note(synthetic_run: Path) -> None:
    (synthetic_run / "data" / "train.parquet").write_bytes(b"PAR1 no")
    run = load_run(synthetic_run)
    assert thumbnails(run) == {}
    assert run.notes[-1].startswith("train.parquet: its images could not be read")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 40])
def test_every_beginning_of_the_order_is_spread_over_the_run(count: int) -> None:
    order = spread_out(list(range(count)))
    assert sorted(order) == list(range(count))
    if count == 40:
        assert order[:3] == [39, 0, 20]


def test_too_many_texts_leave_out_steps_and_say_so(synthetic_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = pack_rollouts(load_run(synthetic_run), {})
    monkeypatch.setattr(page, "MAX_PACKED_BYTES", sum(map(len, whole.values())) // 2)
    run = load_run(synthetic_run)
    _, part = pack_rollouts(run, {})
    assert {0, 12} <= set(part)  # the first and the last step stay
    assert 0 < len(part) < len(whole)
    assert f"the texts of {len(part)} out of 13 steps" in run.notes[-1]
