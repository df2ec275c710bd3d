"""VQA-RAD and PathVQA: one image, one question, one short answer a row; their tables are alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from data_prep.records import Record
from data_prep.sources.base import Place, image_refs, text
from data_prep.sources.hub import HubSource


class VqaRadSource(HubSource):
    """Radiology; its modality is not stated row by row."""

    name: ClassVar[str] = "vqa_rad"
    repository: ClassVar[str] = "flaviagiammarino/vqa-rad"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/flaviagiammarino/vqa-rad"
    licence: ClassVar[str] = "CC0-1.0"
    columns: ClassVar[tuple[str, ...]] = ("image", "question", "answer")

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        return Record(
            id=place.fallback_id,
            split=place.split,
            question=text(row, "question"),
            answer=text(row, "answer"),
            images=image_refs(row["image"], place.path.parent),
        )


class PathVqaSource(VqaRadSource):
    """Pathology; microscopy for the most part but not throughout, so no modality is claimed."""

    name: ClassVar[str] = "path_vqa"
    repository: ClassVar[str] = "flaviagiammarino/path-vqa"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/flaviagiammarino/path-vqa"
    licence: ClassVar[str] = "MIT"
