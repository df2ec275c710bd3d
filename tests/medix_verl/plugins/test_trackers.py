"""veRL's trackers for real: a run that is resumed goes on in the same place of each."""

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
from medix_verl.training.loggers import PACKAGES, logger_environment, logger_names

TRACKERS = ("console", "file", "tensorboard", "wandb", *(["trackio"] if find_spec("trackio") else []))
"""TensorBoard and W&B come with veRL, trackio with the extra `loggers` alone."""
ATTEMPT = """
import json, sys
from omegaconf import OmegaConf
from verl.utils.tracking import Tracking
from medix_verl.plugins.validation_trackers import SampleTrackers
shown = SampleTrackers(OmegaConf.create({
    "run_dir": ".", "files": "val.parquet", "count": 2, "most": -1, "responses": 1,
    "trackers": sys.argv[3].split(",")}))
first, last = int(sys.argv[1]), int(sys.argv[2])
tracking = Tracking("medix-r1", "drill", sys.argv[3].split(","), config={"trainer": {}})
for step in range(first, last + 1):
    tracking.log({"reward/score/mean": step / 10}, step)
    rows = [{"step": step, "split": "val", "session": 0, "sample_id": f"s{n}", "question": "organ?",
             "reference": "liver", "response": "<b>liver</b>", "scores": {"score": 1.0}} for n in range(2)]
    with open("rollouts/scored.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\\n" for row in rows)
    shown.after_batch(step)
tracking.finish()
"""


def config(*names: str) -> Any:
    return OmegaConf.create({"trainer": {"logger": list(names)}})


@pytest.mark.slow
def test_the_table_names_what_verl_takes() -> None:
    from verl.utils.tracking import Tracking

    assert set(PACKAGES) == set(Tracking.supported_backend)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("file", "wandbb"), "[Dd]id you mean 'wandb'"),
        (("console",), r"\[console,file\]"),
        (("file", "clearml"), "clearml"),
    ],
)
def test_trackers_that_can_not_work_are_refused_at_the_start(names: tuple[str, ...], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        logger_names(config(*names))


def test_the_users_own_settings_stay(tmp_path: Path) -> None:
    chosen = {"TENSORBOARD_DIR": "/elsewhere", "WANDB_RUN_ID": "mine"}
    added = logger_environment(tmp_path, TRACKERS, chosen)
    assert not added.keys() & chosen.keys()
    assert added["WANDB_RESUME"] == "allow"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 to 2, then a resume from step 1: steps 2 to 3."""
    folder = tmp_path_factory.mktemp("trackers")
    (folder / "rollouts").mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 0, 0)).save(picture, "PNG")
    rows = [{"extra_info": {"sample_id": f"s{n}"}, "images": [{"bytes": picture.getvalue()}]} for n in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "val.parquet")
    for number, (first, last) in enumerate([(1, 2), (2, 3)]):
        environment = {**os.environ, **logger_environment(folder, TRACKERS, {}), "WANDB_MODE": "offline"}
        environment["VERL_FILE_LOGGER_PATH"] = str(folder / f"attempt-{number}.jsonl")
        command = [sys.executable, "-c", ATTEMPT, str(first), str(last), ",".join(TRACKERS)]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
        assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_a_file_for_each_attempt(run: Path) -> None:
    steps = [[json.loads(line)["step"] for line in path.open()] for path in sorted(run.glob("attempt-*"))]
    assert steps == [[1, 2], [2, 3]]


@pytest.mark.slow
def test_tensorboard_has_both_attempts_in_one_folder(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {event.step for event in events.Scalars("reward/score/mean")} == {1, 2, 3}


@pytest.mark.slow
def test_wandb_goes_on_with_the_same_run(run: Path) -> None:
    """Offline here; the id is what makes both one run when they are synchronised."""
    identity = (run / "wandb_run_id").read_text().strip()
    attempts = sorted((run / "wandb").glob("offline-run-*"))
    assert len(attempts) == 2
    assert all(attempt.name.endswith(identity) for attempt in attempts)


@pytest.mark.slow
def test_held_out_samples_are_shown_with_their_images(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for number in range(2):
        images = events.Images(f"val/samples/{number}")
        assert {image.step for image in images} == {1, 2, 3}
        red = Image.open(io.BytesIO(images[0].encoded_image_string)).convert("RGB").getpixel((5, 5))
        assert red[0] > 180
        assert red[1] < 30
    assert list((run / "wandb").glob("offline-run-*/files/media/table/val/samples_*.table.json"))
    assert list((run / "wandb").glob("offline-run-*/files/media/images/**/*.jpg"))
    assert len(list((run / "rollouts" / "validation_samples").glob("step_*.html"))) == 3


@pytest.mark.slow
@pytest.mark.skipif("trackio" not in TRACKERS, reason="needs pip install -e '.[loggers]'")
def test_trackio_has_both_attempts(run: Path) -> None:
    (database,) = (run / "trackio").glob("medix-r1*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step from metrics order by id").fetchall()
    assert {step for _, step in rows} == {1, 2, 3}
    assert list((run / "trackio").rglob("*.jpg"))
