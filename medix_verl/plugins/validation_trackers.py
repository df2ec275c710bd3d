"""Shows the chosen samples of a validation in the trackers of the run, with images; veRL's own table is text only.

Runs in veRL's driver, where W&B's and trackio's runs are open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from medix_verl.validation_samples.collect import ShownSample, ValidationSamples
from medix_verl.validation_samples.write import write_samples

KEY = "val/samples"
COLUMNS: list[Any] = ["sample_id", "image", "question", "reference", "response", "score"]


class SampleTrackers:
    """Settings: `medix.yaml`, `trainer.v1.sampler.sampler_kwargs.validation_samples`."""

    def __init__(self, settings: Any) -> None:
        plain = OmegaConf.to_container(settings, resolve=True)
        files = plain["files"] if isinstance(plain["files"], list) else [plain["files"]]
        trackers = plain["trackers"]
        self._trackers = {trackers} if isinstance(trackers, str) else set(trackers)
        self._folder = Path(plain["run_dir"]) / "rollouts" / "validation_samples"
        self._samples = ValidationSamples(
            Path(plain["run_dir"]), [Path(file) for file in files], plain["count"], plain["most"], plain["responses"]
        )

    def after_batch(self, step: int) -> None:
        """Call after each validation batch; writes and logs when the validation is whole."""
        samples = self._samples.completed(step)
        if not samples:
            return
        write_samples(self._folder, step, samples)
        if "tensorboard" in self._trackers:
            _to_tensorboard(samples, step)
        if "wandb" in self._trackers:
            _to_wandb(samples, step)
        if "trackio" in self._trackers:
            _to_trackio(samples, step)


def _row(sample: ShownSample, image: Any) -> list[Any]:
    return [sample.sample_id, image, sample.question, sample.reference, sample.response, sample.scores["score"]]


def _to_tensorboard(samples: Sequence[ShownSample], step: int) -> None:
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(os.environ.get("TENSORBOARD_DIR", "tensorboard_log")) as writer:
        for number, sample in enumerate(samples):
            for image in sample.images[:1]:
                writer.add_image(f"{KEY}/{number}", np.asarray(Image.open(image)), step, dataformats="HWC")
            head = f"{sample.sample_id}: {sample.scores['score']:.3f}"
            lines = "\n".join((head, sample.question, sample.reference, sample.response))
            # TensorBoard reads markdown: four spaces make it plain text, whatever the model wrote.
            text = "\n".join(f"    {line}" for line in lines.splitlines())
            writer.add_text(f"{KEY}/{number}", text, step)


def _to_wandb(samples: Sequence[ShownSample], step: int) -> None:
    import wandb

    rows = [_row(sample, wandb.Image(str(sample.images[0])) if sample.images else None) for sample in samples]
    # W&B shows a table of the last step, and pictures with a slider over the steps.
    pictures = [
        wandb.Image(str(sample.images[0]), caption=f"{sample.question}\n{sample.reference}\n--\n{sample.response}")
        for sample in samples
        if sample.images
    ]
    wandb.log({KEY: wandb.Table(columns=COLUMNS, data=rows), f"{KEY}_images": pictures}, step=step)


def _to_trackio(samples: Sequence[ShownSample], step: int) -> None:
    import pandas
    import trackio

    rows = [_row(sample, trackio.Image(str(sample.images[0])) if sample.images else None) for sample in samples]
    trackio.log({KEY: trackio.Table(dataframe=pandas.DataFrame(rows, columns=COLUMNS))}, step=step)
