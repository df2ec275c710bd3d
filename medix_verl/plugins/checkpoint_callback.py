"""After veRL's driver has saved a checkpoint: write its manifest, choose the best, prune. And save on demand.

Named by `trainer.checkpoint_callback_class`. veRL's own `max_actor_ckpt_to_keep` stays null: it knows no best one.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from medix_verl.export.manifest import write_manifest
from medix_verl.training.checkpoints import keeper_of
from medix_verl.training.metrics_file import read_metrics
from medix_verl.training.watch import stop_requested

logger = logging.getLogger(__name__)
POLL_S = 0.5


class MedixCheckpointCallback(CheckpointCallback):  # type: ignore[misc]
    """Look after checkpoints by `medix.checkpoints`. What fails on a save ends the run, as a checkpoint is lost."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self._run_dir = Path(config.medix.run_dir)
        keeper = keeper_of(config)
        assert keeper is not None  # this class is the callback that the configuration names
        self._keeper = keeper
        threading.Thread(target=self._listen, daemon=True, name="medix-stop-request").start()

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """Act when all of a checkpoint is on disk; with `async_save` (Megatron) it is not, and left to veRL."""
        if async_save:
            return
        for shards in (Path(checkpoint_dir) / "actor", Path(checkpoint_dir) / "critic"):
            if shards.is_dir():
                write_manifest(shards)
        self._keeper.update(self._keeper.values(self._rows()))
        for step in self._keeper.prune():
            logger.info("deleted checkpoint %s: neither among the last nor the best", step)
        if stop_requested(self._run_dir):
            # veRL's loop looks at this after it has logged the step, and then ends as at the end of any run.
            self.config.trainer.total_epochs = 0

    def _rows(self) -> list[dict[str, Any]]:
        """Return what is logged so far: by earlier attempts and, as the supervisor may lag, by this one's logger."""
        own = os.environ.get("VERL_FILE_LOGGER_PATH")
        rows = read_metrics(self._run_dir / "metrics.jsonl")
        return [*rows, *(read_metrics(Path(own)) if own else [])]

    def _listen(self) -> None:
        """Once a stop is asked for, let veRL save at the end of each step: it looks at `save_freq` anew each time.

        There, all of a step is done and none of the next begun, so a resume goes on with the next data. The engine is
        in no state to save anywhere else: vLLM holds the memory, and the next prompts are already drawn.
        """
        pause = threading.Event()
        while not stop_requested(self._run_dir):
            pause.wait(POLL_S)
        self.config.trainer.save_freq = 1
