"""Duplicates within a set, and rows that are also in an evaluation set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.assemble import RowKey
from data_prep.records import Refusal
from data_prep.rows import RowFacts
from data_prep.settings import Settings
from data_prep.shards import ShardResult


@dataclass
class Findings:
    """Rows to leave out, and what the manifest says on all pairs that were found."""

    dropped: dict[RowKey, Refusal] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def find(results: Sequence[ShardResult], settings: Settings) -> Findings:
    """Compare every row with those before it, and the training rows with the evaluation rows."""
    findings = Findings()
    rows = [
        ((result.index, position), fact)
        for result in results
        if not result.evaluation
        for position, fact in enumerate(result.facts)
    ]
    _exact(rows, settings, findings)
    return findings


def _exact(rows: Sequence[tuple[RowKey, RowFacts]], settings: Settings, findings: Findings) -> None:
    ids: set[tuple[str, str]] = set()
    contents: dict[str, str] = {}
    for key, fact in rows:
        identity = (fact.source, fact.id)
        if identity in ids:
            findings.dropped[key] = Refusal(fact.source, fact.id, "duplicate_id", f"a second time, in {fact.split}")
            continue
        ids.add(identity)
        earlier = contents.setdefault(fact.row_key, fact.id)
        if earlier != fact.id and not settings.keep_duplicates:
            findings.dropped[key] = Refusal(fact.source, fact.id, "duplicate_row", f"the same as {earlier!r}")
