"""veRL's trackers for real: a run that is resumed goes on in the same place of each."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix.training.loggers import PACKAGES, logger_environment, logger_names

TRACKERS = ("console", "file", "tensorboard", "wandb", *(["trackio"] if find_spec("trackio") else []))
"""TensorBoard and W&B come with veRL, trackio with the extra `loggers` alone."""
ATTEMPT = """
import sys
from verl.utils.tracking import Tracking
first, last = int(sys.argv[1]), int(sys.argv[2])
tracking = Tracking("medix-r1", "drill", sys.argv[3].split(","), config={"trainer": {}})
for step in range(first, last + 1):
    tracking.log({"reward/score/mean": step / 10}, step)
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
        (("file", "wandbb"), "did you mean 'wandb'"),
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
@pytest.mark.skipif("trackio" not in TRACKERS, reason="needs pip install -e '.[loggers]'")
def test_trackio_has_both_attempts(run: Path) -> None:
    (database,) = (run / "trackio").glob("medix-r1*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step from metrics order by id").fetchall()
    assert {step for _, step in rows} == {1, 2, 3}
