"""qiaojin/PubMedQA, labelled part: a research question, its abstract, and yes, no or maybe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from data_prep.records import Record, Unfit
from data_prep.sources.base import Place, tables_under, text
from data_prep.sources.hub import HubSource


class PubMedQaSource(HubSource):
    """`pqa_labeled` has one split of 1,000 rows, named train."""

    name: ClassVar[str] = "pubmedqa"
    repository: ClassVar[str] = "qiaojin/PubMedQA"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/qiaojin/PubMedQA"
    licence: ClassVar[str] = "MIT"
    columns: ClassVar[tuple[str, ...]] = ("pubid", "question", "context", "final_decision")
    patterns: ClassVar[tuple[str, ...]] = ("pqa_labeled/*.parquet",)
    evaluation_splits: ClassVar[tuple[str, ...] | None] = None

    def files(self) -> Iterator[tuple[Path, str]]:
        for path, split in tables_under(self.root, self.suffixes):
            if self.root.is_file() or "pqa_labeled" in path.parts:
                yield path, split

    def record(self, row: Mapping[str, Any], place: Place) -> Record | None:
        decision = text(row, "final_decision").lower()
        if decision not in ("yes", "no", "maybe"):
            raise Unfit("no_answer", f"final_decision is {decision!r}"[:60])
        context = "\n".join(str(part).strip() for part in row["context"]["contexts"])
        return Record(
            id=text(row, "pubid"),
            split=place.split,
            question=f"{context}\n\n{text(row, 'question')} Answer yes, no or maybe.",
            answer=decision,
            answer_kind="choice",
        )
