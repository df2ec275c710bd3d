"""A planted leak is found, and what only resembles one is not: duplicates, contamination, what is dropped."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep.prepare import prepare
from data_prep.sources.catalogue import SAMPLE_DATA
from medix.errors import DataError
from medix_verl.cli import app

WriteSet = Callable[..., Path]
Picture = Callable[..., bytes]


def reencoded(data: bytes, scale: float, quality: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = round(image.width * scale), round(image.height * scale)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def real_images(number: int) -> list[bytes]:
    """Real medical pictures of the sample set's evaluation half, of all its families."""
    paths = sorted((SAMPLE_DATA / "images").glob("test_*"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // number)][:number]]


def question(number: int) -> str:
    """Different for each number in nearly all of its letters."""
    rng = random.Random(number)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvy", k=rng.randint(3, 9))) for _ in range(12)]
    return f"{words[0].title()}, {' '.join(words[1:])}?"


def reworded(text: str) -> str:
    return "  " + text.upper().replace(",", " - ").replace("?", " ?!") + " "


def test_a_planted_leak_is_found_and_dropped(tmp_path: Path, write_set: WriteSet, picture: Picture) -> None:
    images = real_images(20)
    assert len(images) == 20
    evaluation = [{"picture": image, "question": f"What is seen in {i}?"} for i, image in enumerate(images)]
    evaluation += [{"question": question(i), "answer": f"disease {i}"} for i in range(20)]
    evaluation_set = write_set(evaluation, name="test", folder="evaluation")
    clean = [{"id": f"clean{i}", "question": f"Clean {i}?", "picture": picture(1000 + i)} for i in range(60)]
    clean += [{"id": f"text{i}", "question": question(100 + i)} for i in range(60)]
    changed = [reencoded(image, (0.9, 1.1)[i % 2], (75, 50)[i % 3 == 0]) for i, image in enumerate(images)]
    leaked = [{"id": f"image{i}", "picture": image, "question": f"Else {i}?"} for i, image in enumerate(changed)]
    leaked += [{"id": f"question{i}", "question": reworded(question(i)), "answer": "other"} for i in range(20)]
    training_set = write_set(clean + leaked)
    options: dict[str, Any] = {"workers": 0, "against": (f"jsonl:{evaluation_set}",), "max_quarantine": 0.0}
    found = prepare([f"jsonl:{training_set}"], tmp_path / "kept", **options)["dedupe"]["against"]
    assert found["evaluation_rows"] == 40
    assert (found["image"]["rows"], found["question"]["rows"], found["contaminated_rows"]) == (20, 20, 40)

    manifest = prepare([f"jsonl:{training_set}"], tmp_path / "dropped", drop_contaminated=True, **options)
    assert manifest["rows"]["kept"] == 120
    lines = map(json.loads, (tmp_path / "dropped" / "quarantine.jsonl").read_text().splitlines())
    dropped = {row["id"] for row in lines if row["reason"] == "contaminated"}
    assert dropped == {f"{kind}{i}" for kind in ("image", "question") for i in range(20)}


def test_exact_duplicates_are_dropped_near_ones_reported(
    tmp_path: Path, write_set: WriteSet, picture: Picture, read_quarantine: Any
) -> None:
    same = {"question": "Which organ?", "answer": "liver"}
    rows = [
        same | {"id": "a", "picture": picture(1)},
        same | {"id": "b", "picture": picture(1), "question": "which ORGAN"},  # the same but for case and punctuation
        same | {"id": "c", "picture": picture(2)},  # another image: another question
        same | {"id": "d", "picture": picture(1), "answer": "spleen"},  # contradicts a
        {"id": "a", "question": "A second row of that id?"},
        {"id": "e", "question": question(1)},
        {"id": "f", "question": question(1) + " Explain."},
    ]
    out = tmp_path / "out"
    report = prepare([f"jsonl:{write_set(rows)}"], out, workers=0, max_quarantine=0.5)["dedupe"]["within"]
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in lines] == [("b", "duplicate_row"), ("a", "duplicate_id")]
    assert report["different_answers"]["examples"] == [
        {"rows": ["jsonl/train/a", "jsonl/train/d"], "question": "Which organ?"}
    ]
    assert report["near_questions_without_image"]["rows"] == 1
    assert prepare(
        [f"jsonl:{tmp_path / 'set'}"], tmp_path / "kept", workers=0, max_quarantine=0.5, keep_duplicates=True
    )["rows"] == {"read": 7, "kept": 6, "quarantined": 1}


@pytest.mark.parametrize("images", [2, 6])
def test_a_question_of_many_images_is_a_template_not_a_leak(
    images: int, tmp_path: Path, write_set: WriteSet, picture: Picture
) -> None:
    asked = {"question": "In which of the lobes of the lung is the opacity seen here?"}
    training = write_set([asked | {"picture": picture(i)} for i in range(images - 1)])
    write_set([asked | {"picture": picture(50)}], name="test")
    found = prepare([f"jsonl:{training}"], tmp_path / "out", workers=0)["dedupe"]["against"]
    # One training and one evaluation image is a leaked row; five and one, from four on, a template.
    assert found["question"]["rows"] == (1 if images == 2 else 0)
    assert found["question_of_other_image"]["rows"] == (0 if images == 2 else 5)


def leaks_of(tmp_path: Path, root: Path, **options: Any) -> dict[str, Any]:
    found = prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, overwrite=True, **options)
    report: dict[str, Any] = found["dedupe"]
    return report


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"question": "Is it ER+?"}, {"question": "Is it ER-?"}),
        ({"answer": "Hb < 7"}, {"answer": "Hb > 7"}),
        ({"answer": "-5"}, {"answer": "+5"}),
        ({"answer": "2.5 mm"}, {"answer": "25 mm"}),
        ({"answer": "10² cells"}, {"answer": "102 cells"}),
        ({"answer": "की"}, {"answer": "का"}),  # a vowel sign is a letter
        ({"options": ["aorta", "liver"], "answer": "liver"}, {"options": ["spleen", "liver"], "answer": "liver"}),
    ],
    ids=lambda row: str(next(iter(row.values()))),
)
def test_rows_that_differ_in_a_sign_or_in_options_are_no_duplicates(
    one: dict[str, Any], other: dict[str, Any], tmp_path: Path, write_set: WriteSet, read_quarantine: Any
) -> None:
    same = {"question": "Which?", "answer": "liver"}
    prepare([f"jsonl:{write_set([same | one, same | other, same | one])}"], tmp_path / "out", workers=0)
    assert read_quarantine(tmp_path / "out") == {"train2": "duplicate_row"}


def test_a_patient_on_both_sides_is_a_leak_and_stays_on_one_side_of_a_split(
    tmp_path: Path, write_set: WriteSet, picture: Picture
) -> None:
    rows = [{"patient_id": f"p{i % 10}", "picture": picture(i)} for i in range(60)]
    root = write_set(rows)
    prepare([f"jsonl:{root}"], tmp_path / "split", workers=0, val_fraction=0.3)
    sides = [
        {row["extra_info"]["group"] for row in pq.read_table(tmp_path / "split" / f"{split}.parquet").to_pylist()}
        for split in ("train", "val")
    ]
    assert sides[0].isdisjoint(sides[1])
    assert sides[0] | sides[1] == {f"p{i}" for i in range(10)}
    write_set([{"patient_id": "p3", "picture": picture(99)}], name="test")
    found = leaks_of(tmp_path, root)["against"]
    assert (found["group"]["rows"], found["contaminated_rows"]) == (6, 6)
    manifest = prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, overwrite=True, drop_contaminated=True)
    assert manifest["rows"]["kept"] == 55


def test_an_evaluation_set_that_cannot_be_read_certifies_nothing(tmp_path: Path, write_set: WriteSet) -> None:
    root = write_set([{}])
    moved = write_set([{"images": [f"gone{i}.png"]} for i in range(10)], name="test", folder="moved")
    with pytest.raises(DataError, match=r"10 of 10 rows of the evaluation set .*missing_image"):
        leaks_of(tmp_path, root, against=(f"jsonl:{moved}",))
    found = leaks_of(tmp_path, root, against=(f"jsonl:{moved}",), max_quarantine=1.0)
    assert found["against"]["evaluation_rows_refused"] == 10


def test_the_terminal_ends_with_the_leak_and_may_fail_for_it(tmp_path: Path, write_set: WriteSet) -> None:
    root = write_set([{"question": question(1), "patient_id": "p", "kind_of_scan": "x"}])
    other = write_set([{"question": question(1)}], name="test", folder="other")
    command = ["prepare", f"jsonl:{root}", "--out", str(tmp_path / "out"), "--against", f"jsonl:{other}"]
    command += ["--workers", "0"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.exception
    assert "1 training rows are also among the 1 rows" in shown.output.strip().splitlines()[-1]
    assert "--drop-contaminated" in shown.output.strip().splitlines()[-1]
    assert "columns not read: kind_of_scan" in shown.output
    assert "group from patient_id" in shown.output
    failed = CliRunner().invoke(app, [*command, "--fail-on-leak"])
    assert isinstance(failed.exception, DataError)


def test_ids_count_within_their_split_and_the_limit_within_what_is_prepared(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": n, "question": f"{n}?", "answer": "a", "split": ("test", "train")[n > 5]}) for n in range(9)
    ]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "rows.jsonl").write_text("\n".join(lines))
    found = prepare([f"jsonl:{tmp_path / 'one'}?splits=train"], tmp_path / "out", workers=0, limit=2)
    assert {split: facts["rows"] for split, facts in found["splits"].items()} == {"train": 2}
    for name in ("train", "val"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / f"{name}.jsonl").write_text(json.dumps({"id": 0, "question": f"{name}?", "answer": "a"}))
    assert prepare([f"jsonl:{tmp_path / 'two'}"], tmp_path / "out2", workers=0)["rows"]["kept"] == 2


def test_rows_of_parts_that_are_left_out_are_counted_and_said(tmp_path: Path) -> None:
    line = json.dumps({"question": "q?", "options": ["a1", "b1"], "answer_idx": "A", "answer": "a1"})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "phrases_no_exclude_test.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"1 of medqa/test.*"):
        prepare([f"medqa:{tmp_path}/set"], tmp_path / "out", workers=0)
    (tmp_path / "set" / "phrases_no_exclude_train.jsonl").write_text(line)
    assert prepare([f"medqa:{tmp_path}/set"], tmp_path / "out", workers=0)["left_out"] == {"medqa/test": 1}
