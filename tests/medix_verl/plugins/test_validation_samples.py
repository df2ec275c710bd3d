"""Held-out samples shown at each validation: the same ones, whole, with pictures, in trackers over a resume."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from PIL import Image

from medix.errors import ConfigError
from medix_verl.plugins.validation_samples import ValidationSamples
from medix_verl.training.loggers import NAMES, logger_environment, logger_names

pytestmark = pytest.mark.slow  # the plugins import torch and veRL
ROWS = 6


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (900, 300), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def make_run(folder: Path) -> Path:
    """Six held-out rows, every second one with a picture."""
    rows = [
        {"extra_info": {"sample_id": f"s{n}"}, "images": [{"bytes": png(n * 40), "path": None}] if n % 2 else []}
        for n in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "val.parquet")
    (folder / "rollouts").mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def follow(run: Path, count: int = 3, most: int = -1, responses: int = 1) -> ValidationSamples:
    settings = {"run_dir": str(run), "files": str(run / "val.parquet"), "count": count, "most": most}
    return ValidationSamples(OmegaConf.create({**settings, "responses": responses, "trackers": ["console", "file"]}))


def score(run: Path, step: int, numbers: Any = range(ROWS), split: str = "val", session: int = 0) -> None:
    with (run / "rollouts" / "scored.jsonl").open("a") as file:
        for n in numbers:
            row = {"step": step, "split": split, "session": session, "sample_id": f"s{n}", "question": f"q{n}"}
            row |= {"reference": "liver", "response": f"<b>at {step}</b>", "scores": {"score": 0.5}}
            file.write(json.dumps(row) + "\n")


def ids(samples: list[dict[str, Any]]) -> list[str]:
    return [sample["sample_id"] for sample in samples]


def test_nothing_is_shown_before_the_validation_is_whole(run: Path) -> None:
    samples = follow(run)
    score(run, 10, range(4))
    assert samples.after_batch(10) == []
    score(run, 10, range(4, ROWS))
    shown = samples.after_batch(10)
    assert len(shown) == 3
    rows = [json.loads(line) for line in (run / "rollouts/validation_samples/step_10.jsonl").open()]
    assert rows == shown
    assert all((run / "rollouts/validation_samples" / image).is_file() for row in rows for image in row["images"])


def test_a_sample_that_the_judge_refused_is_not_waited_for_and_not_shown(run: Path) -> None:
    samples = follow(run, count=ROWS)
    score(run, 10, range(1, ROWS))
    (run / "rollouts/refused.jsonl").write_text('{"step": 10, "split": "val", "session": 0, "sample_id": "s0"}\n')
    assert sorted(ids(samples.after_batch(10))) == ["s1", "s2", "s3", "s4", "s5"]


def test_the_same_samples_every_time_in_whatever_order(run: Path) -> None:
    samples = follow(run)
    score(run, 10)
    first = samples.after_batch(10)
    score(run, 20, reversed(range(ROWS)))
    second = samples.after_batch(20)
    assert ids(first) == ids(second)
    assert {sample["response"] for sample in second} == {"<b>at 20</b>"}
    again = follow(run)  # after a resume: it follows from where the files end
    assert again.after_batch(20) == []
    score(run, 20)
    assert ids(again.after_batch(20)) == ids(first)


@pytest.mark.parametrize(
    ("options", "sessions", "scored"), [({}, 1, ROWS), ({"most": 4}, 1, 4), ({"responses": 2}, 2, 6)]
)
def test_training_rows_half_lines_and_other_steps_are_passed_over(
    run: Path, options: Any, sessions: int, scored: int
) -> None:
    """Of a whole validation, one of fewer samples, and one of more responses."""
    samples = follow(run, **options)
    score(run, 10, split="train")
    score(run, 9)
    with (run / "rollouts" / "scored.jsonl").open("a") as file:
        file.write('{"step": 10, "spl\n')
    for session in range(sessions):
        assert samples.after_batch(10) == []
        score(run, 10, range(scored), session=session)
    assert len(set(ids(samples.after_batch(10)))) == 3


def test_pictures_are_small_and_those_of_the_sample(run: Path) -> None:
    samples = follow(run, count=ROWS)
    score(run, 10)
    shown = {sample["sample_id"]: sample["images"] for sample in samples.after_batch(10)}
    assert [len(shown[f"s{n}"]) for n in range(ROWS)] == [0, 1, 0, 1, 0, 1]
    picture = Image.open(run / "rollouts/validation_samples" / shown["s3"][0])
    assert max(picture.size) == 448
    assert abs(picture.getpixel((5, 5))[0] - 3 * 40) < 6


TRACKERS = ("console", "file", "tensorboard", "wandb", *(["trackio"] if find_spec("trackio") else []))
"""TensorBoard and W&B come with veRL, trackio with the extra `loggers` alone."""
ATTEMPT = """
import json, sys
from omegaconf import OmegaConf
from verl.utils.tracking import Tracking
from medix_verl.plugins.validation_samples import ValidationSamples
first, last, trackers = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
shown = ValidationSamples(OmegaConf.create({
    "run_dir": ".", "files": "val.parquet", "count": 6, "most": -1, "responses": 1, "trackers": trackers}))
tracking = Tracking("medix-r1", "drill", trackers, config={"trainer": {}})
for step in range(first, last + 1):
    tracking.log({"reward/score/mean": step / 10}, step)
    rows = [{"step": step, "split": "val", "session": 0, "sample_id": f"s{n}", "question": "organ?",
             "reference": "liver", "response": "<b>liver</b>", "scores": {"score": 1.0}} for n in range(6)]
    with open("rollouts/scored.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\\n" for row in rows)
    shown.after_batch(step)
tracking.finish()
"""


def test_the_table_names_what_verl_takes() -> None:
    from verl.utils.tracking import Tracking

    assert set(NAMES) == set(Tracking.supported_backend)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("file", "wandbb"), "Did you mean 'wandb'"),
        (("console",), r"\[console,file\]"),
        (("file", "clearml"), "clearml"),
    ],
)
def test_trackers_that_can_not_work_are_refused_at_the_start(names: tuple[str, ...], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        logger_names(OmegaConf.create({"trainer": {"logger": list(names)}}))


def test_the_users_own_settings_stay(tmp_path: Path) -> None:
    chosen = {"TENSORBOARD_DIR": "/elsewhere", "WANDB_RUN_ID": "mine"}
    added = logger_environment(tmp_path, TRACKERS, chosen)
    assert not added.keys() & chosen.keys()
    assert added["WANDB_RESUME"] == "allow"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 to 2, then a resume from step 1: steps 2 to 3, with veRL's own trackers."""
    folder = make_run(tmp_path_factory.mktemp("trackers"))
    for number, (first, last) in enumerate([(1, 2), (2, 3)]):
        environment = {**os.environ, **logger_environment(folder, TRACKERS, {}), "WANDB_MODE": "offline"}
        environment["VERL_FILE_LOGGER_PATH"] = str(folder / f"attempt-{number}.jsonl")
        command = [sys.executable, "-c", ATTEMPT, str(first), str(last), ",".join(TRACKERS)]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
        assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


def test_tensorboard_and_wandb_go_on_in_the_same_place_with_pictures(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "tensorboard"))
    events.Reload()
    assert {event.step for event in events.Scalars("reward/score/mean")} == {1, 2, 3}
    shown = events.Tags()["images"]
    assert len(shown) == ROWS / 2
    images = events.Images(shown[0])
    assert {image.step for image in images} == {1, 2, 3}
    red, green, _ = Image.open(io.BytesIO(images[0].encoded_image_string)).convert("RGB").getpixel((5, 5))
    assert (red > 30, green < 30) == (True, True)
    # Offline here; the id is what makes both attempts one W&B run when they are synchronised.
    identity = (tracked / "wandb_run_id").read_text().strip()
    attempts = sorted((tracked / "wandb").glob("offline-run-*"))
    assert [attempt.name.endswith(identity) for attempt in attempts] == [True, True]
    assert list((tracked / "wandb").glob("offline-run-*/files/media/table/val/samples_*.table.json"))
    assert list((tracked / "wandb").glob("offline-run-*/files/media/images/**/*.jpg"))


@pytest.mark.skipif("trackio" not in TRACKERS, reason="needs pip install -e '.[loggers]'")
def test_trackio_has_both_attempts(tracked: Path) -> None:
    (database,) = (tracked / "trackio").glob("medix-r1*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step from metrics order by id").fetchall()
    assert {step for _, step in rows} == {1, 2, 3}
    assert list((tracked / "trackio").rglob("*.jpg"))
