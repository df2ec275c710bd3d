"""What the processes of a run import, recorded in each: `tests/recipes/test_gpu_profile.py` holds the record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.engine.drills import ROOT, SMALL, model_and_data, shell
from tests.recipes.test_gpu_profile import RECORD, distributions_of

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1500)]


def test_the_record_has_all_that_the_processes_of_a_run_import(tmp_path: Path) -> None:
    """Run one step. With MEDIX_RECORD_IMPORTS=write the record is made anew."""
    ground, modules = model_and_data(tmp_path), tmp_path / "modules"
    modules.mkdir()
    overrides = [
        f"medix.run_dir={tmp_path}/run", f"actor_rollout_ref.model.path={ground}/tiny-vlm",
        f"data.train_files={ground}/data/train.parquet", f"data.val_files={ground}/data/val.parquet",
        "medix.scorer.judge.urls=[rule-judge]", *SMALL, "trainer.total_training_steps=1",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT / "tests/engine/record_imports"), os.environ.get("PYTHONPATH", "")])
    command = f"medix train --config-name medix_cpu -- {' '.join(overrides)}"
    process = shell(command, tmp_path / "log", PYTHONPATH=path, MEDIX_RECORD_IMPORTS=str(modules))
    assert process.wait(1200) == 0, (tmp_path / "log").read_text()[-3000:]
    processes = [json.loads(file.read_text()) for file in modules.glob("*.json")]
    assert len(processes) >= 5  # the trainer, its workers, the reward's, vLLM's, TransferQueue's
    imported = distributions_of({name for process in processes for name in process["modules"]})
    if os.environ.get("MEDIX_RECORD_IMPORTS") == "write":
        RECORD.write_text(json.dumps(sorted(imported), indent=0) + "\n")
    recorded = set(json.loads(RECORD.read_text()))
    assert imported - recorded == set()
