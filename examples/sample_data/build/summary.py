"""Counts of the set, and how far its answers could be guessed without looking."""

from __future__ import annotations

from collections import Counter
from typing import Any

Lines = dict[str, list[dict[str, Any]]]


def blind_accuracy(lines: Lines) -> dict[str, float]:
    """Kind -> share of held-out rows answered right by the training split's commonest answer to the same wording."""
    seen: dict[str, Counter[str]] = {}
    for line in lines["train"]:
        seen.setdefault(line["question"], Counter())[line["answer"]] += 1
    right: dict[str, list[bool]] = {}
    for line in lines["test"]:
        guess = seen[line["question"]].most_common(1)[0][0] if line["question"] in seen else None
        for kind in (line["kind"], "with picture" if line["images"] else "text", "all"):
            right.setdefault(kind, []).append(guess == line["answer"])
    return {kind: sum(hits) / len(hits) for kind, hits in sorted(right.items())}


def summary(lines: Lines) -> str:
    """Counts by split, kind, modality and answer, and the blind accuracy by kind."""
    parts = []
    for split, rows in lines.items():
        pictures = {name for row in rows for name in row["images"]}
        parts.append(f"{split}: {len(rows)} rows, {len(pictures)} pictures")
        for field in ("kind", "modality", "answer"):
            counts = Counter(str(row[field]) for row in rows).most_common()
            parts.append(f"  {field} ({len(counts)}): " + ", ".join(f"{name} {count}" for name, count in counts))
    guessed = ", ".join(f"{kind} {share:.2f}" for kind, share in blind_accuracy(lines).items())
    parts.append(f"held-out accuracy of the commonest training answer to the same wording: {guessed}")
    return "\n".join(parts)
