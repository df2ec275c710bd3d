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

from data_prep import near
from data_prep.near import ImageIndex, TextIndex
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
    _drop_repeated(list(_rows(results, False)), settings, findings)
    kept = [row for row in _rows(results, False) if row[0] not in findings.dropped]
    training = [row for row in kept if row[1].split == "train"]
    evaluation = [row for row in kept if row[1].split != "train"] + list(_rows(results, True))
    findings.report = {
        "thresholds": {
            "min_correlation": near.MIN_CORRELATION,
            "max_grey_difference": near.MAX_GREY_DIFFERENCE,
            "max_hash_bits": near.MAX_HASH_BITS,
            "min_jaccard": near.MIN_JACCARD,
            "distinctive_words": DISTINCTIVE_WORDS,
            "template_images": TEMPLATE_IMAGES,
        },
        "within": {
            "near_images": _listed(_near_images(kept)),
            "near_questions_without_image": _listed(_near_questions(kept)),
            "different_answers": _listed(_different_answers(kept)),
        },
        "against": _contamination(training, evaluation, settings, findings) | _refused(results),
    }
    return findings


def _refused(results: Sequence[ShardResult]) -> dict[str, int]:
    """Return how many rows of the evaluation sets could not be compared with."""
    return {"evaluation_rows_refused": sum(r.rows for result in results if result.evaluation for r in result.refusals)}


def _rows(results: Sequence[ShardResult], evaluation: bool) -> Iterable[Row]:
    for result in results:
        if result.evaluation == evaluation:
            for position, fact in enumerate(result.facts):
                yield (result.index, position), fact


def _listed(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": len(pairs), "examples": pairs[:EXAMPLES]}


def _name(fact: RowFacts) -> str:
    return f"{fact.source}/{fact.split}/{fact.id}"


def _drop_repeated(rows: Sequence[Row], settings: Settings, findings: Findings) -> None:
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


def _images(rows: Sequence[Row]) -> tuple[list[str], list[RowFacts], ImageIndex]:
    """Return the distinct images: keys, first rows, prints."""
    first: dict[str, tuple[RowFacts, str]] = {}
    for _, fact in rows:
        for key, print_ in zip(fact.image_keys, fact.image_prints, strict=True):
            first.setdefault(key, (fact, print_))
    return list(first), [fact for fact, _ in first.values()], ImageIndex([print_ for _, print_ in first.values()])


def _near_images(rows: Sequence[Row]) -> list[dict[str, Any]]:
    _, facts, index = _images(rows)
    return [
        {"row": _name(facts[i]), "near": _name(facts[j]), "correlation": round(likeness, 4)}
        for i, j, likeness in index.nearest(index, earlier_only=True)
    ]


def _near_questions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows without images whose question nearly repeats an earlier one."""
    index, first, pairs = TextIndex(), dict[str, RowFacts](), []
    for _, fact in rows:
        if fact.image_keys or fact.question_key in first:
            continue
        if found := index.nearest(fact.question_key, fact.signature):
            other = first[found[0]]
            pairs.append({"row": _name(fact), "near": _name(other), "jaccard": round(found[1], 3)})
        index.add(fact.question_key, fact.signature)
        first[fact.question_key] = fact
    return pairs


def _different_answers(rows: Sequence[Row]) -> list[dict[str, Any]]:
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
    groups = {(fact.source, fact.group): _name(fact) for _, fact in evaluation if fact.group}
    leaks: dict[str, list[dict[str, Any]]] = {"image": [], "question": [], "question_of_other_image": [], "group": []}
    templates = _templates([*training, *evaluation])
    rows = 0
    for row in training:
        fact = row[1]
        image = next((images[key] for key in fact.image_keys if key in images), None)
        question = questions.get(fact.question_key)
        distinctive = fact.words >= DISTINCTIVE_WORDS and fact.question_key not in templates
        telling = question if not fact.image_keys or distinctive else None
        group = None
        if (patient := (fact.source, fact.group)) in groups:
            group = {"near": groups[patient], "found": "patient or study"}
        if image:
            leaks["image"].append({"row": _name(fact)} | image)
        if question:
            leaks["question" if telling else "question_of_other_image"].append({"row": _name(fact)} | question)
        if group:
            leaks["group"].append({"row": _name(fact)} | group)
        if evidence := image or telling or group:
            rows += 1
            if settings.drop_contaminated:
                findings.drop(row, "contaminated", f"also {evidence['found']} as {evidence['near']}")
    report: dict[str, Any] = {"evaluation_rows": len(evaluation), "contaminated_rows": rows}
    return report | {"dropped": settings.drop_contaminated} | {kind: _listed(pairs) for kind, pairs in leaks.items()}


def _templates(rows: Iterable[Row]) -> set[str]:
    """Return the keys of the questions that are asked of many images."""
    images: dict[str, set[str]] = defaultdict(set)
    for _, fact in rows:
        images[fact.question_key].update(fact.image_keys)
    return {key for key, found in images.items() if len(found) >= TEMPLATE_IMAGES}


def _image_leaks(training: Sequence[Row], evaluation: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return training image key -> where it is in the evaluation sets."""
    keys, _, index = _images(training)
    other_keys, other_facts, other = _images(evaluation)
    known = dict(zip(other_keys, other_facts, strict=True))
    leaks: dict[str, dict[str, Any]] = {
        keys[i]: {"near": _name(other_facts[j]), "found": "image, nearly", "correlation": round(likeness, 4)}
        for i, j, likeness in index.nearest(other)
    }
    same = (key for key in keys if key in known)
    return leaks | {key: {"near": _name(known[key]), "found": "image, byte by byte"} for key in same}


def _question_leaks(training: Sequence[Row], evaluation: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return training question key -> where it is in the evaluation sets."""
    index, known = TextIndex(), dict[str, RowFacts]()
    for _, fact in evaluation:
        known.setdefault(fact.question_key, fact)
        index.add(fact.question_key, fact.signature)
    leaks: dict[str, dict[str, Any]] = {}
    for _, fact in training:
        key = fact.question_key
        if key in leaks:
            continue
        if key in known:
            leaks[key] = {"near": _name(known[key]), "found": "question, but for case and punctuation"}
        elif found := index.nearest(key, fact.signature):
            leaks[key] = {"near": _name(known[found[0]]), "found": "question, nearly", "jaccard": round(found[1], 3)}
    return leaks
