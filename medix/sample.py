"""The one noun of the data: a medical question with its images and its reference answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from medix.errors import DataError
from medix.modality import MODALITIES, is_modality
from medix.prompts import IMAGE_SLOT, render_prompt

AnswerKind = Literal["open", "closed", "choice", "report"]
ANSWER_KINDS: tuple[str, ...] = get_args(AnswerKind)

NOT_APPLICABLE = -1.0
"""Stands for "does not apply" or "was not offered" wherever a record must hold plain floats: a reward component that
drops out for a sample, or a probability that the judge's server does not return."""


@dataclass(frozen=True)
class Sample:
    """One question. Images are kept encoded (PNG or JPEG bytes) and are decoded only where pixels are needed."""

    id: str
    """Unique within `source` and stable between preparations."""
    source: str
    split: str
    question: str
    reference: str
    """What the answer is held against."""
    images: tuple[bytes, ...] = ()
    modality: str | None = None
    """One of the sixteen tags without brackets, or None where the source states none."""
    answer_kind: AnswerKind = "open"
    aliases: tuple[str, ...] = ()
    """Other wordings of `reference` that the source states or that are true by definition."""

    group: str = ""
    """Patient or study, where the source states one."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further columns that were asked for."""

    def __post_init__(self) -> None:
        for name in ("id", "source", "split", "question", "reference"):
            if not getattr(self, name).strip():
                raise DataError(f"Sample {self.id!r} has an empty {name}.", f"Fill in {name!r}.")
        if self.modality is not None and not is_modality(self.modality):
            raise DataError(
                f"Sample {self.id!r} has the modality {self.modality!r}, which is none of {', '.join(MODALITIES)}.",
                "Map the source's own name to one of the tags, or state none.",
            )
        if self.answer_kind not in ANSWER_KINDS:
            raise DataError(
                f"Sample {self.id!r} has the answer kind {self.answer_kind!r}.",
                f"Use one of {', '.join(ANSWER_KINDS)}.",
            )

    def to_verl_row(self, index: int, prompt_template: str, n_tokens: int) -> dict[str, Any]:
        """Return the row that veRL reads: the only place that knows its column names. Same keys for every sample.

        Args:
            index: position in the prepared split, from 0.
            prompt_template: text of a prompt file, see `medix.prompts`.
            n_tokens: prompt length in tokens with image tokens counted, 0 where it was not counted.
        """
        return {
            "data_source": self.source,
            "prompt": [{"role": "user", "content": render_prompt(prompt_template, self.question, len(self.images))}],
            "images": [{"bytes": image, "path": None} for image in self.images],
            "ability": "medical_vqa" if self.images else "medical_qa",
            "reward_model": {"style": "rule", "ground_truth": self.reference},
            "extra_info": {
                "index": index,
                "sample_id": self.id,
                "question": self.question,
                "modality": self.modality or "",
                "answer_kind": self.answer_kind,
                "aliases": list(self.aliases),
                "split": self.split,
                "n_tokens": n_tokens,
                "group": self.group,
                "extra": json.dumps(dict(self.extra), ensure_ascii=False),
            },
        }


def count_image_slots(messages: Sequence[dict[str, Any]]) -> int:
    """Return the number of image placeholders in a row's prompt messages."""
    return sum(str(message["content"]).count(IMAGE_SLOT) for message in messages)
