"""The committed sample set: its form, its balance, and that nothing held out was trained on."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.sources import open_source
from data_prep.sources.sample import SAMPLE_DATA, read_sample_set
from examples.sample_data.build import FAMILIES, picture
from examples.sample_data.build import lines as picture_lines
from medix.errors import MedixError
from medix.modality import is_modality

KEYS = "id source question answer aliases images modality answer_kind kind image_family provenance cut".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def lines() -> dict[str, list[dict[str, Any]]]:
    texts = {split: (SAMPLE_DATA / f"{split}.jsonl").read_text("utf-8") for split in ("train", "test")}
    return {split: [json.loads(line) for line in text.splitlines()] for split, text in texts.items()}


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
    ends = zip(first["low"], first["high"], second["low"], second["high"], strict=True)
    return all(max(low, other_low) < min(high, other_high) for low, high, other_low, other_high in ends)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    # inside, touching columns, one shared pixel, touching rows
    [((0, 0), (2, 2), True), ((4, 0), (8, 4), False), ((3, 3), (5, 5), True), ((3, 4), (5, 6), False)],
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
            has_image = row["kind"] != "text"
            assert bool(row["images"]) == is_modality(str(row["modality"])) == bool(row["cut"]) == has_image
    named = {name for rows in lines.values() for row in rows for name in row["images"]}
    assert named == {f"images/{path.name}" for path in (SAMPLE_DATA / "images").iterdir()}


def blind_accuracy(lines: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Kind -> share of held-out rows answered right by the training split's commonest answer to the same wording."""
    seen: dict[str, Counter[str]] = {}
    for line in lines["train"]:
        seen.setdefault(line["question"], Counter())[line["answer"]] += 1
    right: dict[str, list[bool]] = {}
    for line in lines["test"]:
        guess = seen[line["question"]].most_common(1)[0][0] if line["question"] in seen else None
        for kind in (line["kind"], "with picture" if line["images"] else "text"):
            right.setdefault(kind, []).append(guess == line["answer"])
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def test_mix(lines: dict[str, list[dict[str, Any]]]) -> None:
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
    [
        (None, "no file"), ("{", "test.jsonl"), ("{}", "test.jsonl"),
        ('{"aliases": [], "modality": null, "images": 1}', "images"),
    ],
)  # fmt: skip
def test_reader_refuses(tmp_path: Path, content: str | None, found: str) -> None:
    if content is not None:
        (tmp_path / "test.jsonl").write_text(content)
    with pytest.raises(MedixError, match=found):
        list(read_sample_set("test", tmp_path))


def test_attribution_names_every_source(lines: dict[str, list[dict[str, Any]]]) -> None:
    written = (SAMPLE_DATA / "ATTRIBUTION.md").read_text("utf-8")
    rows = [row for split in lines.values() for row in split if row["cut"]]
    for family, package, file in {(row["image_family"], row["cut"]["package"], row["cut"]["file"]) for row in rows}:
        count = len({row["images"][0] for row in rows if (row["image_family"], row["cut"]["file"]) == (family, file)})
        assert re.search(rf"\| {family} \| {count} \| {package}==[\d.]+ \| [\w.-]+ \| `{re.escape(file)}` \| ", written)


def test_every_picture_has_a_line_that_says_how_it_was_made() -> None:
    made = list(picture_lines())
    assert (len(made), {line["image_family"] for line in made}) == (928, set(FAMILIES))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_picture_is_cut_again_byte_for_byte(family: str) -> None:
    """Only where the source package is installed; `python -m examples.sample_data.build` compares all 928."""
    line = next(line for line in picture_lines() if line["image_family"] == family)
    try:
        image = picture(line)
    except (MedixError, ImportError) as error:
        pytest.skip(str(error))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    assert buffer.getvalue() == (SAMPLE_DATA / line["images"][0]).read_bytes()
