"""Preflight against damaged prepared files: each is refused by name, none by a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.row_schema import ROW_SCHEMA
from medix.errors import DataError
from medix.prompts import load_prompt
from medix.sample import Sample
from medix_verl.preflight import data
from medix_verl.preflight.check import run_check
from medix_verl.preflight.data import check_parquet, check_train_rows

Change = Callable[[dict[str, Any]], Any]


def encoded(kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(buffer, kind)
    return buffer.getvalue()


def row(index: int, images: int = 1) -> dict[str, Any]:
    sample = Sample(f"s{index}", "test", "train", "Where?", "left lung", (encoded(),) * images, "X_RAY")
    return sample.to_verl_row(index, load_prompt(), 20)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), path)
    return str(path)


def test_a_sound_file_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [row(0), row(1, images=0), row(2, images=2)])
    assert check_parquet(path, 20) == f"{path}: 3 rows, 3 images"  # 1 + 0 + 2


def test_a_text_only_row_may_have_null_for_no_images(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", [{**row(0, images=0), "images": None}])
    assert check_parquet(path, 20) == f"{path}: 1 rows, 0 images"


DAMAGE: dict[str, tuple[Change, str]] = {
    "an image that is no image": (
        lambda r: r["images"][0].update(bytes=b"<html>not found</html>"),
        "can not be decoded",
    ),
    "an image cut off": (lambda r: r["images"][0].update(bytes=encoded()[:-60]), "can not be decoded"),
    "an image without bytes": (lambda r: r["images"][0].update(bytes=None), "can not be decoded"),
    "no entry for an image": (lambda r: r.update(images=[None]), "can not be decoded"),
    "an image too few": (lambda r: r.update(images=[]), "1 <image> slots and 0 images"),
    "no list of images": (lambda r: r.update(images=None), "1 <image> slots and 0 images"),
    "an image too many": (
        lambda r: r["images"].append({"bytes": encoded(), "path": None}),
        "1 <image> slots and 2 images",
    ),
    "a prompt too long": (lambda r: r["extra_info"].update(n_tokens=21), "21 prompt tokens, over 20"),
    "no prompt": (lambda r: r.update(prompt=None), "no prompt or no extra_info"),
    "no reference answer": (lambda r: r["reward_model"].update(ground_truth=None), "reward_model.ground_truth"),
    "an empty reference answer": (lambda r: r["reward_model"].update(ground_truth=""), "reward_model.ground_truth"),
    "no reward model": (lambda r: r.update(reward_model=None), "reward_model.ground_truth"),
    "no extra info": (lambda r: r.update(extra_info=None), "no prompt or no extra_info"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_row_is_named(change: Change, message: str, tmp_path: Path) -> None:
    rows = [row(0), row(1), row(2)]
    change(rows[1])
    with pytest.raises(DataError, match=message) as caught:
        check_parquet(write(tmp_path / "train.parquet", rows), 20)
    assert "row 1 (" in str(caught.value)


def test_a_missing_file_a_missing_column_and_no_rows_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no parquet file at"):
        check_parquet(str(tmp_path / "absent.parquet"), 20)
    table = pa.Table.from_pylist([row(0)], schema=ROW_SCHEMA).drop_columns(["reward_model"])
    pq.write_table(table, tmp_path / "column.parquet")
    with pytest.raises(DataError, match="no reward_model"):
        check_parquet(str(tmp_path / "column.parquet"), 20)
    with pytest.raises(DataError, match="has no rows"):
        check_parquet(write(tmp_path / "empty.parquet", []), 20)


FOREIGN: dict[str, tuple[Change, str]] = {
    "the prompt is a text": (lambda r: r.update(prompt="Where?"), "prompt as string"),
    "images are raw bytes": (lambda r: r.update(images=[encoded()]), "images as list<"),
    "extra_info is a text": (lambda r: r.update(extra_info="{}"), "extra_info as string"),
    "n_tokens is a text": (lambda r: r["extra_info"].update(n_tokens="20"), "extra_info as struct<"),
    "no ground_truth anywhere": (lambda r: r["reward_model"].pop("ground_truth"), "reward_model as struct<style"),
    "reward_model is null everywhere": (lambda r: r.update(reward_model=None), "reward_model as null"),
}


@pytest.mark.parametrize(("change", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_column_of_another_type_is_named(change: Change, message: str, tmp_path: Path) -> None:
    """Files that another tool wrote: the types are what pyarrow infers."""
    rows = [row(0)]
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        check_parquet(str(tmp_path / "train.parquet"), 20)


def test_of_a_large_file_some_row_groups_are_decoded_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 rows in groups of 2, of which 4 rows may be decoded: 10 x 4 // 20 = 2 groups, number 0 and 5."""
    rows = [row(index) for index in range(20)]
    rows[3]["images"][0]["bytes"] = b"in group 1, which is not decoded"
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), tmp_path / "train.parquet", row_group_size=2)
    monkeypatch.setattr(data, "MAX_DECODED", 4)
    path = str(tmp_path / "train.parquet")
    expected = f"{path}: 20 rows, 20 images; the images of 4 rows decoded, from 2 of 10 row groups"
    assert check_parquet(path, 20) == expected
    rows[11]["images"][0]["bytes"] = b"in group 5"
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), tmp_path / "train.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"can not be decoded .* in row 11 \(s11\)"):
        check_parquet(path, 20)


def test_of_one_large_row_group_some_rows_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_DECODED", 4)
    path = write(tmp_path / "train.parquet", [row(index) for index in range(10)])
    # Every third row (10 / 4, rounded up): 0, 3, 6, 9.
    assert "the images of 4 rows decoded, from 1 of 1 row groups" in str(check_parquet(path, 20))


@pytest.mark.parametrize(
    ("batch", "most", "expected"),
    [
        (4, -1, "10, 2 batch(es) of 4 an epoch"),  # two files of 5 rows
        (10, -1, "10, 1 batch(es) of 10 an epoch"),
        (16, -1, "data.train_batch_size=10 actor_rollout_ref.actor.ppo_mini_batch_size=2"),
        (4, 3, "data.train_batch_size=2 actor_rollout_ref.actor.ppo_mini_batch_size=2"),
        (4, 1, "Prepare 2 rows or more"),  # two processes, three responses a prompt
    ],
)
def test_rows_for_less_than_a_batch_are_refused(
    batch: int, most: int, expected: str, tmp_path: Path, make_config: Any
) -> None:
    """veRL would divide by the number of batches, which is 0."""
    paths = [write(tmp_path / f"{name}.parquet", [row(index) for index in range(5)]) for name in "ab"]
    mini, group = "actor_rollout_ref.actor.ppo_mini_batch_size", "actor_rollout_ref.rollout.n"
    sizes = {"trainer.n_gpus_per_node": 2, mini: 2, group: 3, "data.train_batch_size": batch}
    config = make_config({**sizes, "data.train_max_samples": most})
    found = run_check("train rows", lambda: check_train_rows(config, paths))
    assert expected in (found.remedy or found.found)


def test_rows_of_a_file_that_is_not_there_are_not_counted(tmp_path: Path) -> None:
    found = run_check("train rows", lambda: check_train_rows(None, [str(tmp_path / "absent.parquet")]))
    assert found.status == "warn"  # the check of the file itself fails


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}\n" * 50], ids=["empty", "magic only", "JSON lines"])
def test_a_file_that_is_no_parquet_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="can not be read as parquet"):
        check_parquet(str(path), 20)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_PIXELS", 40 * 30 - 1)
    with pytest.raises(DataError, match="over 1,199 pixels"):
        check_parquet(write(tmp_path / "train.parquet", [row(0)]), 20)


@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"]), st.data())
def test_no_broken_image_ends_in_a_traceback(kind: str, choose: st.DataObject) -> None:
    content = bytearray(encoded(kind))
    for _ in range(choose.draw(st.integers(1, 4))):
        content[choose.draw(st.integers(0, min(len(content), 400) - 1))] = choose.draw(st.integers(0, 255))
    cut = choose.draw(st.integers(1, len(content)))
    with contextlib.suppress(DataError):  # any other error fails the test
        data._check_image(bytes(content[:cut]), "row 0")
