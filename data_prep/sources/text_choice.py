"""Text-only multiple choice: MedQA, MedMCQA, and the medical subjects of MMLU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from data_prep.records import Record, Unfit
from data_prep.sources.base import Place, tables_under, text
from data_prep.sources.hub import LETTERS, HubSource, choice_answer, choice_question, lettered

MMLU_SUBJECTS: Final = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics", "professional_medicine",
)  # fmt: skip


def _record(row_id: str, split: str, question: str, options: dict[str, str], letter: str) -> Record:
    answer, aliases = choice_answer(letter, options)
    return Record(row_id, split, choice_question(question, options), answer, answer_kind="choice", aliases=aliases)


class MedQaSource(HubSource):
    """USMLE questions with four options."""

    name: ClassVar[str] = "medqa"
    repository: ClassVar[str] = "GBaker/MedQA-USMLE-4-options"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/GBaker/MedQA-USMLE-4-options"
    licence: ClassVar[str] = "CC-BY-4.0"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".parquet")
    patterns: ClassVar[tuple[str, ...]] = ("*.jsonl",)
    columns: ClassVar[tuple[str, ...]] = ("question", "options", "answer_idx")

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        options = {k: v for k, v in dict(row["options"]).items() if isinstance(v, str) and v.strip()}
        return _record(place.fallback_id, place.split, text(row, "question"), options, text(row, "answer_idx"))


class MedMcqaSource(HubSource):
    """Indian entrance examinations; the test split states no answers and is quarantined if asked for."""

    name: ClassVar[str] = "medmcqa"
    repository: ClassVar[str] = "openlifescienceai/medmcqa"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/openlifescienceai/medmcqa"
    licence: ClassVar[str] = "Apache-2.0"
    columns: ClassVar[tuple[str, ...]] = ("id", "question", "opa", "opb", "opc", "opd", "cop")
    evaluation_splits: ClassVar[tuple[str, ...] | None] = ("validation",)

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        right = row["cop"]
        if not isinstance(right, int) or not 0 <= right <= 3:
            raise Unfit("no_answer", f"cop is {right!r}"[:60])
        options = lettered([row["opa"], row["opb"], row["opc"], row["opd"]])
        return _record(text(row, "id"), place.split, text(row, "question"), options, LETTERS[right])


class MmluMedicalSource(HubSource):
    """Six subjects of MMLU; they have no training split, so the few `dev` rows stand for it."""

    name: ClassVar[str] = "mmlu_medical"
    repository: ClassVar[str] = "cais/mmlu"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/cais/mmlu"
    licence: ClassVar[str] = "MIT"
    columns: ClassVar[tuple[str, ...]] = ("question", "choices", "answer")
    splits: ClassVar[Mapping[str, str]] = {"dev": "train", "validation": "val"}
    evaluation_splits: ClassVar[tuple[str, ...] | None] = ("validation", "test")
    patterns: ClassVar[tuple[str, ...]] = tuple(f"{subject}/*.parquet" for subject in MMLU_SUBJECTS)

    def files(self) -> Iterator[tuple[Path, str]]:
        for path, split in tables_under(self.root, self.suffixes):
            if path.parent.name in MMLU_SUBJECTS:
                yield path, split

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        options, right = lettered(list(row["choices"])), row["answer"]
        if not isinstance(right, int) or not 0 <= right < len(options):
            raise Unfit("no_answer", f"answer is {right!r}"[:60])
        row_id = f"{place.path.parent.name}-{place.fallback_id}"
        return _record(row_id, place.split, text(row, "question"), options, LETTERS[right])
