"""Show the same few held-out samples at each validation, with images: veRL's own table is text only.

They go to `rollouts/validation_samples/` and to TensorBoard, W&B and trackio, whose runs are open in veRL's driver.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from omegaconf import OmegaConf

from medix.files import write_atomically
from medix.jsonl import GrowingFile
from medix_verl.report.thumbnails import sample_images, small_jpeg

KEY = "val/samples"
COLUMNS = ("sample_id", "question", "reference", "response", "score")
SIDE_PX, IMAGES_KEPT = 448, 4


class ValidationSamples:
    """Follow `rollouts/scored.jsonl` and `refused.jsonl` from where they end now.

    Args:
        settings: `sampler_kwargs.validation_samples` of `medix.yaml`: `count` samples to show out of the held-out
            `files` (the first `most` rows, all if below 1, with so many `responses` each), `run_dir`, `trackers`.
    """

    def __init__(self, settings: Any) -> None:
        plain = OmegaConf.to_container(settings, resolve=True)
        files, trackers = plain["files"], plain["trackers"]
        self._files = [Path(file) for file in (files if isinstance(files, list) else [files])]
        self._trackers = {trackers} if isinstance(trackers, str) else set(trackers)
        self._count, rollouts = plain["count"], Path(plain["run_dir"]) / "rollouts"
        self._folder = rollouts / "validation_samples"
        rows = sum(pq.ParquetFile(path).metadata.num_rows for path in self._files)
        self._expected = (min(rows, plain["most"]) if plain["most"] > 0 else rows) * plain["responses"]
        self._new = [GrowingFile(rollouts / f"{name}.jsonl", from_end=True) for name in ("scored", "refused")]
        self._step, self._seen = -1, dict[tuple[str, int], dict[str, Any]]()

    def after_batch(self, step: int) -> list[dict[str, Any]]:
        """Write, log and return the samples once every response is scored or refused. Call after each batch."""
        if step != self._step:
            self._step, self._seen = step, {}
        for row in [row for file in self._new for row in file.new_rows()]:
            if row.get("split") != "train" and row.get("step") == step:
                self._seen[row["sample_id"], int(row["session"])] = row
        if len(self._seen) < self._expected:
            return []
        samples = self._chosen()
        self._seen = {}
        write_atomically(self._folder / f"step_{step}.jsonl", "".join(json.dumps(row) + "\n" for row in samples))
        _to_trackers(self._trackers, self._folder, samples, step)
        return samples

    def _chosen(self) -> list[dict[str, Any]]:
        # By the hash of their ids, so that neither order nor an added sample changes the choice; one response each.
        seen = sorted(self._seen.items(), key=lambda item: item[0], reverse=True)
        first = {sample_id: row for (sample_id, _), row in seen if "scores" in row}
        ordered = sorted(first, key=_stem)[: self._count]
        images = self._images(set(ordered))
        return [
            {"step": self._step, **{name: first[sample_id].get(name) for name in COLUMNS}}
            | {"score": first[sample_id]["scores"]["score"], "images": images.get(sample_id, [])}
            for sample_id in ordered
        ]

    def _images(self, wanted: set[str]) -> dict[str, list[str]]:
        """Return sample id -> its pictures, as paths in the folder; each is written once a run."""
        found: dict[str, list[str]] = {}
        for file in self._files:
            for sample_id, encoded in sample_images(file, wanted - found.keys(), []):
                found[sample_id] = []
                for number, data in enumerate(encoded[:IMAGES_KEPT]):
                    name = f"images/{_stem(sample_id)[:16]}-{number}.jpg"
                    picture = None if (self._folder / name).exists() else small_jpeg(data, SIDE_PX)
                    if picture is not None:
                        write_atomically(self._folder / name, picture)
                    if (self._folder / name).exists():
                        found[sample_id].append(name)
        return found


def _stem(sample_id: str) -> str:
    return hashlib.sha256(sample_id.encode()).hexdigest()


def _to_trackers(trackers: set[str], folder: Path, samples: list[dict[str, Any]], step: int) -> None:
    pictures = [str(folder / sample["images"][0]) if sample["images"] else None for sample in samples]
    cells = [[sample[name] for name in COLUMNS] for sample in samples]
    shown = list(zip(pictures, cells, strict=True))
    if "tensorboard" in trackers:
        import numpy as np
        from PIL import Image
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(os.environ.get("TENSORBOARD_DIR", "tensorboard_log")) as writer:
            for number, (picture, texts) in enumerate(shown):
                if picture is not None:
                    writer.add_image(f"{KEY}/{number}", np.asarray(Image.open(picture)), step, dataformats="HWC")
                # TensorBoard reads markdown: four spaces make it plain text, whatever the model wrote.
                lines = "\n".join(map(str, texts)).splitlines()
                writer.add_text(f"{KEY}/{number}", "\n".join(f"    {line}" for line in lines), step)
    if "wandb" in trackers:
        import wandb

        rows = [[picture and wandb.Image(picture), *texts] for picture, texts in shown]
        # W&B shows a table of the last step, and pictures with a slider over the steps.
        slider = [wandb.Image(picture) for picture, _ in shown if picture is not None]
        wandb.log({KEY: wandb.Table(columns=["image", *COLUMNS], data=rows), f"{KEY}_images": slider}, step=step)
    if "trackio" in trackers:
        import pandas
        import trackio

        rows = [[picture and trackio.Image(picture), *texts] for picture, texts in shown]
        trackio.log({KEY: trackio.Table(dataframe=pandas.DataFrame(rows, columns=["image", *COLUMNS]))}, step=step)
