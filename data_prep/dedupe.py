"""Duplicates within a set, and training rows that are also in an evaluation set.

Dropped: an id used twice in one split, a row whose question, answer and images an earlier row has, and, where asked
for, rows found in an evaluation set. Reported only: what is near but not the same, since slices of one scan and
questions of one template are near without being duplicates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from data_prep import fingerprints
from data_prep.fingerprints import ImageIndex, TextIndex
from data_prep.records import Refusal
from data_prep.rows import RowFacts
from data_prep.settings import Settings
from data_prep.shards import RowKey, ShardResult

EXAMPLES: Final = 20
DISTINCTIVE_WORDS: Final = 8
"""A shorter question on an image (`Is there a fracture?`) says nothing on where the row comes from."""
TEMPLATE_IMAGES: Final = 4
"""Nor does one that is asked of as many different images: it is a template."""

Row = tuple[RowKey, RowFacts]
Evidence = dict[str, Any]


@dataclass
class Findings:
    """Rows to leave out, and what the manifest says on all pairs that were found."""

    dropped: dict[RowKey, Refusal] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def drop(self, row: Row, reason: str, detail: str) -> None:
        key, fact = row
        self.dropped[key] = Refusal(fact.source, fact.id, reason, detail)


def find(results: Sequence[ShardResult], settings: Settings) -> Findings:
    """Compare every row with those before it, and the training rows with the evaluation rows.

    The evaluation rows are those of `--against` and this set's own validation rows.
    """
    findings = Findings()
    _drop_repeated(_rows(results, False), settings, findings)
    kept = [row for row in _rows(results, False) if row[0] not in findings.dropped]
    training = [row for row in kept if row[1].split == "train"]
    evaluation = [row for row in kept if row[1].split != "train"] + list(_rows(results, True))
    refused = sum(refusal.rows for result in results if result.evaluation for refusal in result.refusals)
    names = ("min_correlation", "max_grey_difference", "max_hash_bits", "min_jaccard")
    thresholds = {name: getattr(fingerprints, name.upper()) for name in names}
    findings.report = {
        "thresholds": thresholds | {"distinctive_words": DISTINCTIVE_WORDS, "template_images": TEMPLATE_IMAGES},
        "within": {
            "near_images": _listed(_near_images(kept)),
            "near_questions_without_image": _listed(_near_questions(kept)),
            "different_answers": _listed(_different_answers(kept)),
        },
        "against": _contamination(training, evaluation, settings, findings) | {"evaluation_rows_refused": refused},
    }
    return findings


def _rows(results: Sequence[ShardResult], evaluation: bool) -> Iterable[Row]:
    for result in results:
        if result.evaluation == evaluation:
            for position, fact in enumerate(result.facts):
                yield (result.index, position), fact


def _listed(pairs: list[Evidence]) -> dict[str, Any]:
    return {"rows": len(pairs), "examples": pairs[:EXAMPLES]}


def _name(fact: RowFacts) -> str:
    return f"{fact.source}/{fact.split}/{fact.id}"


def _drop_repeated(rows: Iterable[Row], settings: Settings, findings: Findings) -> None:
    ids: set[tuple[str, str, str]] = set()
    contents: dict[str, str] = {}
    for row in rows:
        fact = row[1]
        identity = fact.source, fact.stated_split, fact.id
        if identity in ids:
            findings.drop(row, "duplicate_id", f"a second time, in {fact.stated_split}")
            continue
        ids.add(identity)
        earlier = contents.setdefault(fact.row_key, _name(fact))
        if earlier != _name(fact) and not settings.keep_duplicates:
            findings.drop(row, "duplicate_row", f"the same as {earlier}")


def _images(rows: Iterable[Row]) -> tuple[dict[str, RowFacts], ImageIndex]:
    """Return the distinct images by key, each with its first row, and the index of their prints in that order."""
    first: dict[str, tuple[RowFacts, str]] = {}
    for _, fact in rows:
        for key, print_ in zip(fact.image_keys, fact.image_prints, strict=True):
            first.setdefault(key, (fact, print_))
    return {key: fact for key, (fact, _) in first.items()}, ImageIndex([print_ for _, print_ in first.values()])


def _near_images(rows: Sequence[Row]) -> list[Evidence]:
    first, index = _images(rows)
    facts = list(first.values())
    return [
        {"row": _name(facts[i]), "near": _name(facts[j]), "correlation": round(likeness, 4)}
        for i, j, likeness in index.nearest(index, earlier_only=True)
    ]


def _near_questions(rows: Sequence[Row]) -> list[Evidence]:
    """Return the rows without images whose question nearly repeats an earlier one."""
    index = TextIndex()
    pairs = []
    for _, fact in rows:
        if not fact.image_keys and fact.question_key not in index.known:
            if found := index.nearest(fact.question_key, fact.signature):
                pairs.append({"row": _name(fact), "near": _name(found[0]), "jaccard": round(found[1], 3)})
            index.add(fact.question_key, fact.signature, fact)
    return pairs


def _different_answers(rows: Sequence[Row]) -> list[Evidence]:
    """Return rows with question and images in common but not the answer: one of them is wrong, or both are true."""
    groups: dict[tuple[str, ...], list[RowFacts]] = defaultdict(list)
    for _, fact in rows:
        groups[(fact.question_key, *fact.image_keys)].append(fact)
    several = (group for group in groups.values() if len({fact.row_key for fact in group}) > 1)
    return [{"rows": [_name(fact) for fact in group[:5]], "question": group[0].question} for group in several]


def _contamination(
    training: Sequence[Row], evaluation: Sequence[Row], settings: Settings, findings: Findings
) -> dict[str, Any]:
    images = _image_leaks(training, evaluation)
    questions = _question_leaks(training, evaluation)
    groups = {
        (fact.source, fact.group): {"near": _name(fact), "found": "patient or study"}
        for _, fact in evaluation
        if fact.group
    }
    leaks: dict[str, list[Evidence]] = {"image": [], "question": [], "question_of_other_image": [], "group": []}
    templates = _templates([*training, *evaluation])
    rows = 0
    for row in training:
        fact = row[1]
        distinctive = fact.words >= DISTINCTIVE_WORDS and fact.question_key not in templates
        asked = "question" if not fact.image_keys or distinctive else "question_of_other_image"
        found = {
            "image": next((images[key] for key in fact.image_keys if key in images), None),
            asked: questions.get(fact.question_key),
            "group": groups.get((fact.source, fact.group)),
        }
        for kind, evidence in found.items():
            if evidence:
                leaks[kind].append({"row": _name(fact)} | evidence)
        if proof := found["image"] or found.get("question") or found["group"]:
            rows += 1
            if settings.drop_contaminated:
                findings.drop(row, "contaminated", f"also {proof['found']} as {proof['near']}")
    report: dict[str, Any] = {"evaluation_rows": len(evaluation), "contaminated_rows": rows}
    return report | {"dropped": settings.drop_contaminated} | {kind: _listed(pairs) for kind, pairs in leaks.items()}


def _templates(rows: Iterable[Row]) -> set[str]:
    """Return the keys of the questions that are asked of many images."""
    images: dict[str, set[str]] = defaultdict(set)
    for _, fact in rows:
        images[fact.question_key].update(fact.image_keys)
    return {key for key, found in images.items() if len(found) >= TEMPLATE_IMAGES}


def _image_leaks(training: Sequence[Row], evaluation: Sequence[Row]) -> dict[str, Evidence]:
    """Return training image key -> where it is in the evaluation sets."""
    mine, index = _images(training)
    known, other = _images(evaluation)
    keys = list(mine)
    facts = list(known.values())
    leaks: dict[str, Evidence] = {
        keys[i]: {"near": _name(facts[j]), "found": "image, nearly", "correlation": round(likeness, 4)}
        for i, j, likeness in index.nearest(other)
    }
    same = (key for key in mine if key in known)
    return leaks | {key: {"near": _name(known[key]), "found": "image, byte by byte"} for key in same}


def _question_leaks(training: Sequence[Row], evaluation: Sequence[Row]) -> dict[str, Evidence]:
    """Return training question key -> where it is in the evaluation sets."""
    index = TextIndex()
    for _, fact in evaluation:
        index.add(fact.question_key, fact.signature, fact)
    leaks: dict[str, Evidence] = {}
    for key, signature in {fact.question_key: fact.signature for _, fact in training}.items():
        if key in index.known:
            leaks[key] = {"near": _name(index.known[key]), "found": "question, but for case and punctuation"}
        elif found := index.nearest(key, signature):
            leaks[key] = {"near": _name(found[0]), "found": "question, nearly", "jaccard": round(found[1], 3)}
    return leaks
