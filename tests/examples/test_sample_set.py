"""The committed sample set: its form, its balance, and that nothing held out was trained on."""

from __future__ import annotations

import io
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.sources import open_source
from data_prep.sources.sample import SAMPLE_DATA, read_sample_set
from examples.sample_data.build.attribution import attribution
from examples.sample_data.build.build import FEWEST_TO_LEARN_FROM, choose_rows, distinct, text_rows
from examples.sample_data.build.families.ct_chest import display, largest, liver_or_lung
from examples.sample_data.build.families.mammography import connected_part
from examples.sample_data.build.picture import Cut, Fact, Picture
from examples.sample_data.build.slabs import slab_split
from examples.sample_data.build.summary import blind_accuracy, summary
from examples.sample_data.build.topics import TOPICS
from medix.errors import MedixError
from medix.modality import is_modality

KEYS = (
    "id source question answer aliases images modality answer_kind kind image_family provenance cut".split()  # noqa: SIM905
)


def load(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE_DATA / f"{split}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def lines() -> dict[str, list[dict[str, Any]]]:
    return {split: load(split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def thumbnails(lines: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Split -> names and [n, 28, 28, 3] small copies of its pictures."""
    found = {}
    for split, rows in lines.items():
        names = sorted({name for row in rows for name in row["images"]})
        small = [np.asarray(Image.open(SAMPLE_DATA / name).resize((28, 28), Image.Resampling.BOX)) for name in names]
        found[split] = (names, np.stack(small).astype(np.float32))
    return found


def overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two boxes of one file share a pixel: they do if they overlap along every axis."""
    assert first["axes"][: len(second["axes"])] == second["axes"][: len(first["axes"])]
    return all(
        max(low, other_low) < min(high, other_high)
        for low, high, other_low, other_high in zip(
            first["low"], first["high"], second["low"], second["high"], strict=True
        )
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ((0, 0), (2, 2), True),
        ((4, 0), (8, 4), False),
        ((3, 3), (5, 5), True),
        ((3, 4), (5, 6), False),
    ],
    ids=["inside", "touching columns", "one shared pixel", "touching rows"],
)
def test_overlap(low: tuple[int, int], high: tuple[int, int], expected: bool) -> None:
    # The other box is columns 0..3 and rows 0..3.
    assert overlap({"axes": "xy", "low": [0, 0], "high": [4, 4]}, {"axes": "xy", "low": low, "high": high}) is expected


def test_no_held_out_pixel_is_trained_on(lines: dict[str, list[dict[str, Any]]]) -> None:
    cuts = {split: {json.dumps(row["cut"]) for row in rows if row["cut"]} for split, rows in lines.items()}
    compared = 0
    for train, test in product(map(json.loads, sorted(cuts["train"])), map(json.loads, sorted(cuts["test"]))):
        if (train["package"], train["file"]) == (test["package"], test["file"]):
            compared += 1
            assert not overlap(train, test), (train, test)
    assert compared > 1000


def test_held_out_slices_lie_apart_from_trained_ones(lines: dict[str, list[dict[str, Any]]]) -> None:
    slices: dict[tuple[str, str], set[int]] = {}
    for split, rows in lines.items():
        for row in rows:
            if row["cut"] and row["cut"]["axes"] == "xyz":
                slices.setdefault((row["image_family"], split), set()).add(row["cut"]["low"][2])
    for family, apart in (("ct_chest", 3), ("brain_mri", 5)):
        # A gap of two slices left out means that the nearest slice numbers differ by three.
        nearest = min(abs(a - b) for a, b in product(slices[family, "train"], slices[family, "test"]))
        assert nearest >= apart, family


def test_no_picture_is_in_both_splits(thumbnails: dict[str, tuple[list[str], np.ndarray]]) -> None:
    """Mean difference of grey levels of 28x28 copies: 0 for the same picture, under 1 for a re-encoded one."""
    (_, train), (names, test) = thumbnails["train"], thumbnails["test"]
    nearest = np.array([np.abs(train - picture).mean(axis=(1, 2, 3)).min() for picture in test])
    assert nearest.min() > 1.5, names[int(nearest.argmin())]


def test_pictures_of_a_split_are_distinct_and_small(thumbnails: dict[str, tuple[list[str], np.ndarray]]) -> None:
    for names, _ in thumbnails.values():
        contents = [(SAMPLE_DATA / name).read_bytes() for name in names]
        assert len(set(contents)) == len(names)
        for content in contents:
            with Image.open(io.BytesIO(content)) as image:
                assert (image.size, image.mode) == ((112, 112), "RGB")
    assert len(thumbnails["train"][0]) >= 350
    total = sum(path.stat().st_size for path in SAMPLE_DATA.rglob("*") if path.is_file())
    assert total < 6_000_000


def test_form_of_the_lines(lines: dict[str, list[dict[str, Any]]]) -> None:
    for split, rows in lines.items():
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert list(row) == KEYS
            assert row["id"].startswith(split)
            assert (
                bool(row["images"]) == is_modality(str(row["modality"])) == bool(row["cut"]) == (row["kind"] != "text")
            )
    named = {name for rows in lines.values() for row in rows for name in row["images"]}
    assert named == {f"images/{path.name}" for path in (SAMPLE_DATA / "images").iterdir()}


def test_mix(lines: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    train, test = lines["train"], lines["test"]
    assert 500 <= len(train) <= 950
    assert 96 <= len(test) <= 136
    assert len({row["modality"] for row in train if row["modality"]}) >= 8
    assert {row["answer"] for row in test} <= {row["answer"] for row in train}
    assert len({row["answer"] for row in train}) <= 45
    for rows in (train, test):
        share = {kind: sum(row["kind"] == kind for row in rows) / len(rows) for kind in {row["kind"] for row in rows}}
        assert share["modality"] + share["region"] + share["stain"] >= 0.5
        assert 0.04 <= share["text"] <= 0.12
    with capsys.disabled():
        print("\n" + summary(lines).splitlines()[-1])


def test_the_picture_matters(lines: dict[str, list[dict[str, Any]]]) -> None:
    blind = blind_accuracy(lines)
    assert blind["with picture"] <= 0.3
    assert max(share for kind, share in blind.items() if kind in {"modality", "region"}) <= 0.2


def test_no_held_out_question_on_text_alone_was_trained_on(lines: dict[str, list[dict[str, Any]]]) -> None:
    asked = {split: {row["question"] for row in rows if not row["images"]} for split, rows in lines.items()}
    assert asked["test"]
    assert not asked["train"] & asked["test"]


def test_reader_yields_samples(lines: dict[str, list[dict[str, Any]]]) -> None:
    samples = list(read_sample_set("test"))
    assert [sample.id for sample in samples] == [row["id"] for row in lines["test"]]
    assert {sample.source for sample in samples} == {"medix_sample"}
    assert all(image.startswith(b"\xff\xd8") for sample in samples for image in sample.images)
    assert open_source("sample").label == "medix_sample"


@pytest.mark.parametrize(
    ("content", "found"),
    [(None, "no file"), ("{", "test.jsonl"), ("{}", "test.jsonl"), ('{"images": 1, "aliases": []}', "images")],
    ids=["no table", "not JSON", "no fields", "wrong type"],
)
def test_reader_refuses(tmp_path: Path, content: str | None, found: str) -> None:
    if content is not None:
        row = {"aliases": [], "modality": None} if content.startswith('{"images"') else {}
        text = json.dumps({**row, **json.loads(content)}) if content != "{" else content
        (tmp_path / "test.jsonl").write_text(text)
    with pytest.raises(MedixError, match=found):
        list(read_sample_set("test", tmp_path))


def test_attribution_names_every_source(lines: dict[str, list[dict[str, Any]]]) -> None:
    written = (SAMPLE_DATA / "ATTRIBUTION.md").read_text("utf-8")
    assert written == attribution(row for rows in lines.values() for row in rows)
    for row in lines["train"]:
        assert row["cut"] is None or f"`{row['cut']['file']}`" in written


def test_slab_split() -> None:
    # Period 10, two held out, one left out on either side: 0-5 train, 6 out, 7-8 test, 9 out; then again from 10.
    found = dict(slab_split(13, period=10, held_out=2, gap=1))
    assert [z for z in range(13) if found.get(z) == "train"] == [0, 1, 2, 3, 4, 5, 10, 11, 12]
    assert [z for z in range(13) if found.get(z) == "test"] == [7, 8]


def test_display_is_radiological() -> None:
    # [x, y] with x towards the patient's left and y to the front: the right front corner is shown top left.
    plane = np.zeros((4, 6))
    plane[0, 5] = 1
    assert display(plane).shape == (6, 4)
    assert display(plane)[0, 0] == 1


def area(pixels: int) -> np.ndarray:
    return np.arange(10_000) < pixels


@pytest.mark.parametrize(
    ("liver", "lung", "expected"),
    [(9000, 4000, "liver"), (2000, 9000, "lung"), (5000, 4000, None), (9000, 1000, None), (2900, 1500, "liver")],
    ids=["2.25 times", "4.5 times", "1.25 times is not clear", "hardly any lung", "1.93 times"],
)
def test_liver_or_lung(liver: int, lung: int, expected: str | None) -> None:
    facts = liver_or_lung({"liver": area(liver), "lung": area(lung)})
    assert [fact.answer for fact in facts] == ([expected] if expected else [])


def test_largest_wants_a_clear_and_sizeable_winner() -> None:
    # Clear from 1.8 times the next: 5400 / 3000 = 1.8 is, 5300 / 3000 = 1.77 is not; under 3,000 pixels nothing is.
    assert [fact.answer for fact in largest({"heart": area(5400), "lung": area(3000)}, "main organ")] == ["heart"]
    assert largest({"heart": area(5300), "lung": area(3000)}, "main organ") == []
    assert largest({"heart": area(2900), "lung": area(0)}, "main organ") == []


def test_connected_part_leaves_letters_out() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[8:32, :20] = True
    mask[1:4, 30:36] = True
    assert connected_part(mask).sum() == 24 * 20


def fake_picture(answer: str, file: str) -> Picture:
    facts = (Fact("stain", answer),)
    cut = Cut("package", file, "xy", (0, 0), (1, 1))
    return Picture("fake", "train", "MICROSCOPY", np.zeros((112, 112, 3), np.uint8), cut, "fake", facts)


def test_choose_rows_keeps_to_the_quota_and_takes_files_in_turn() -> None:
    quota = TOPICS["stain"].per_answer["train"]
    pictures = [fake_picture("a", f"file {number % 2}") for number in range(4 * quota)] + [fake_picture("b", "file 2")]
    rows = choose_rows(pictures, "train", {Fact("stain", "a")}, random.Random(0))
    assert [row.answer for row in rows] == ["a"] * quota, "b is not allowed"
    files = [row.picture.cut.file for row in rows if row.picture]
    assert files.count("file 0") == quota // 2
    assert FEWEST_TO_LEARN_FROM > 1


def test_distinct_joins_the_facts_of_equal_pictures() -> None:
    (joined,) = distinct([fake_picture("a", "file"), fake_picture("b", "file"), fake_picture("a", "file")])
    assert [fact.answer for fact in joined.facts] == ["a", "b"]


def test_text_rows_hold_out_one_wording_of_each_fact() -> None:
    train, test = text_rows("train"), text_rows("test")
    assert {row.answer for row in train} == {row.answer for row in test}
    assert len(train) == 5 * len(test)
