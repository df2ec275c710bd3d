"""Gathers the scored responses of a validation and picks the same few samples out of them every time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medix.jsonl import GrowingFile
from medix_verl.report.thumbnails import sample_images, small_jpeg

SIDE_PX = 448
IMAGES_KEPT = 4
"""Of one sample."""


@dataclass(frozen=True)
class ShownSample:
    """One held-out sample with the response that it got at a step. `images` are small JPEG files."""

    sample_id: str
    question: str
    reference: str
    response: str
    scores: dict[str, float]
    images: tuple[Path, ...] = ()


@dataclass
class ValidationSamples:
    """Follows `rollouts/scored.jsonl` from where it ends now.

    Args:
        files: the held-out parquet files.
        most: `data.val_max_samples`; below 1 for all rows.
        responses: responses to one sample.
        count: samples to show; 0 for none.
    """

    run_dir: Path
    files: Sequence[Path]
    count: int
    most: int = -1
    responses: int = 1
    _seen: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict, init=False)
    _step: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        self._scored = GrowingFile(self.run_dir / "rollouts" / "scored.jsonl", from_end=True)
        rows = sum(pq.ParquetFile(path).metadata.num_rows for path in self.files)
        self._expected = (rows if self.most < 1 else min(rows, self.most)) * self.responses

    def completed(self, step: int) -> list[ShownSample]:
        """The chosen samples once every response of this step's validation has been scored; till then none."""
        if step != self._step:
            self._step, self._seen = step, {}
        for row in self._scored.new_rows():
            if row.get("split") != "train" and row.get("step") == step:
                self._seen[row["sample_id"], int(row["session"])] = row
        if self.count < 1 or len(self._seen) < self._expected:
            return []
        rows, self._seen = self._chosen(), {}
        images = self._images({row["sample_id"] for row in rows})
        return [
            ShownSample(
                row["sample_id"], row["question"], row["reference"], row["response"], dict(row["scores"]),
                images.get(row["sample_id"], ()),
            )
            for row in rows
        ]  # fmt: skip

    def _chosen(self) -> list[dict[str, Any]]:
        """By the hash of their ids, so that neither order nor an added sample reshuffles them; one response each."""
        first = {sample_id: row for (sample_id, _), row in sorted(self._seen.items(), reverse=True)}
        ordered = sorted(first, key=lambda sample_id: hashlib.sha256(sample_id.encode()).digest())
        return [first[sample_id] for sample_id in ordered[: self.count]]

    def _images(self, wanted: set[str]) -> dict[str, tuple[Path, ...]]:
        """Sample id -> its pictures, written once a run."""
        folder = self.run_dir / "rollouts" / "validation_samples" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, tuple[Path, ...]] = {}
        for file in self.files:
            for sample_id, encoded in sample_images(file, wanted - found.keys(), []):
                stem = hashlib.sha256(sample_id.encode()).hexdigest()[:16]
                paths = []
                for number, data in enumerate(encoded[:IMAGES_KEPT]):
                    path = folder / f"{stem}-{number}.jpg"
                    picture = None if path.exists() else small_jpeg(data, SIDE_PX)
                    if picture is not None:
                        path.write_bytes(picture)
                    if path.exists():
                        paths.append(path)
                found[sample_id] = tuple(paths)
        return found
