"""The held-out samples that are shown at each validation: the same ones, whole, with their pictures, and escaped."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medix_verl.validation_samples.collect import ValidationSamples
from medix_verl.validation_samples.write import write_samples

ROWS = 6


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (900, 300), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose held-out file has six rows, every second one with a picture."""
    rows = [
        {
            "extra_info": {"sample_id": f"s{n}"},
            "images": [{"bytes": png(n * 40), "path": None}] if n % 2 else [],
        }
        for n in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "val.parquet")
    (tmp_path / "rollouts").mkdir()
    return tmp_path


def follow(run: Path, count: int = 3, **options: Any) -> ValidationSamples:
    return ValidationSamples(run, [run / "val.parquet"], count, **options)


def score(run: Path, step: int, numbers: Any = range(ROWS), split: str = "val", session: int = 0) -> None:
    with (run / "rollouts" / "scored.jsonl").open("a") as file:
        for n in numbers:
            row = {"step": step, "split": split, "session": session, "sample_id": f"s{n}", "question": f"q{n}"}
            row |= {"reference": "liver", "response": f"<b>at {step}</b>", "scores": {"score": 0.5}}
            file.write(json.dumps(row) + "\n")


def ids(samples: list[Any]) -> list[str]:
    return [sample.sample_id for sample in samples]


def test_nothing_is_shown_before_the_validation_is_whole(run: Path) -> None:
    samples = follow(run)
    score(run, 10, range(4))
    assert samples.completed(10) == []
    score(run, 10, range(4, ROWS))
    assert len(samples.completed(10)) == 3


def test_the_same_samples_every_time_in_whatever_order(run: Path) -> None:
    samples = follow(run)
    score(run, 10)
    first = samples.completed(10)
    score(run, 20, reversed(range(ROWS)))
    second = samples.completed(20)
    assert ids(first) == ids(second)
    assert {sample.response for sample in second} == {"<b>at 20</b>"}


def test_after_a_resume_the_samples_are_the_same_and_old_rows_do_not_count(run: Path) -> None:
    score(run, 10)
    before = follow(run)
    assert before.completed(10) == []  # it follows from where the file ended
    score(run, 10)
    assert ids(before.completed(10)) == ids(_fresh(run, 20))


def _fresh(run: Path, step: int) -> list[Any]:
    samples = follow(run)
    score(run, step)
    return samples.completed(step)


def test_training_rows_half_lines_and_other_steps_are_passed_over(run: Path) -> None:
    samples = follow(run)
    score(run, 10, split="train")
    score(run, 9)
    with (run / "rollouts" / "scored.jsonl").open("a") as file:
        file.write('{"step": 10, "spl\n')
    assert samples.completed(10) == []
    score(run, 10)
    assert len(samples.completed(10)) == 3


@pytest.mark.parametrize(("options", "sessions", "scored"), [({"most": 4}, 1, 4), ({"responses": 2}, 2, ROWS)])
def test_a_validation_of_fewer_samples_or_more_responses(run: Path, options: Any, sessions: int, scored: int) -> None:
    samples = follow(run, **options)
    for session in range(sessions):
        assert samples.completed(10) == []
        score(run, 10, range(scored), session=session)
    assert len(set(ids(samples.completed(10)))) == 3


def test_pictures_are_small_and_those_of_the_sample(run: Path) -> None:
    samples = follow(run, count=ROWS)
    score(run, 10)
    shown = {sample.sample_id: sample.images for sample in samples.completed(10)}
    assert [len(shown[f"s{n}"]) for n in range(ROWS)] == [0, 1, 0, 1, 0, 1]
    picture = Image.open(shown["s3"][0])
    assert max(picture.size) == 448
    assert abs(picture.getpixel((5, 5))[0] - 3 * 40) < 6


def test_the_page_shows_texts_as_text(run: Path) -> None:
    samples = follow(run)
    score(run, 10)
    folder = run / "rollouts" / "validation_samples"
    shown = samples.completed(10)
    write_samples(folder, 10, shown)
    page = (folder / "step_10.html").read_text()
    assert "&lt;b&gt;at 10" in page
    assert "<b>at 10" not in page
    rows = [json.loads(line) for line in (folder / "step_10.jsonl").open()]
    assert [row["sample_id"] for row in rows] == ids(shown)
    for row in rows:
        assert all((folder / image).is_file() and f'src="{image}"' in page for image in row["images"])
