"""One record to one checked row: question made safe, images prepared, reference answer proven scorable, facts noted."""

from __future__ import annotations

import asyncio
import base64
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from data_prep import fingerprints
from data_prep.dicom_image import is_dicom, read_header
from data_prep.images import MAX_BYTES, ImagePolicy, PreparedImage, prepare_image, thumbnail
from data_prep.records import Record, Refusal, Unfit
from data_prep.settings import Settings
from data_prep.sources.choices import LETTERS
from data_prep.sources.folders import modality_tag
from medix.errors import DataError, MedixError
from medix.response import format_response, parse_response
from medix.same_answer import answer_key
from medix.sample import Sample

_CONTROL: Final = re.compile(r"<(?=\|[^<>|]{1,40}\|>)")
"""Where a token begins that a tokenizer would obey, were it left in a question; slots are escaped by the prompt."""
_MAX_CHARS: Final = 200_000


@dataclass(frozen=True)
class RowFacts:
    """What the later stages need to know of a row without reading it again. JSON-serialisable."""

    id: str
    source: str
    split: str
    """The prepared split."""
    question: str
    """First 200 characters, for the report."""
    answer: str
    """Likewise."""
    modality: str
    answer_kind: str
    n_tokens: int
    sizes: list[tuple[int, int]]
    actions: list[str]
    notes: list[str]
    stated_split: str
    """The split that the source has the row in."""
    group: str
    """Patient or study, empty where the source states none."""
    question_key: str
    row_key: str
    """Of question, answer and images."""
    words: int
    """In the question, normalised."""
    signature: str
    """MinHash of the question."""
    image_keys: list[str]
    """SHA-256 of the prepared bytes."""
    image_prints: list[str]
    """For near-duplicate search, see `fingerprints.image_print`."""


@dataclass(frozen=True)
class PreparedRow:
    """A sample, its image sizes, and its facts but for the tokens."""

    sample: Sample
    facts: RowFacts
    thumbnail: str


def safe_question(text: str) -> str:
    """Neutralise control tokens such as `<|im_end|>` (zero-width space after the `<`)."""
    return _CONTROL.sub("<\u200b", text.strip())


def rendered(record: Record) -> tuple[str, tuple[str, ...]]:
    """Return the question as training asks it, passage before and options below, and the aliases with the right letter.

    The letter, alone or before the option's text, is as right an answer as the text.
    """
    parts = [record.passage.strip(), ""] if record.passage.strip() else []
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, record.choices, strict=False)]
    question = "\n".join([*parts, record.question.strip(), *options])
    letters = (record.letter, f"{record.letter}. {record.reference.strip()}") if record.letter else ()
    return question, (*record.aliases, *letters)


def prepare_row(record: Record, source: str, split: str, settings: Settings) -> PreparedRow | Refusal:
    """Check and convert one record.

    Args:
        source: what becomes the row's `data_source`.
        split: `train` or `val`; of the former a share becomes `val` where the settings say so.
    """
    images: list[PreparedImage] = []
    try:
        return _prepare(record, source, split, settings, images)
    except Unfit as unfit:
        return Refusal(source, record.id[:200], unfit.reason, unfit.detail, _thumbnail(images))


def _prepare(record: Record, source: str, split: str, settings: Settings, images: list[PreparedImage]) -> PreparedRow:
    _check_fields(record)
    raw = [ref.read(MAX_BYTES) for ref in record.images]
    policy = ImagePolicy(settings.min_pixels, settings.max_pixels)
    for data, ref in zip(raw, record.images, strict=True):
        images.append(prepare_image(data, ref.name, policy, ref.view))
    question, aliases = rendered(record)
    if answer_key(record.reference) is None:
        raise Unfit("unscorable_answer", "it holds no letter and no digit")
    # Held out by patient or image, so that neither is on both sides.
    group = record.group or (fingerprints.sha256(raw[0]) if raw else fingerprints.text_key(record.passage or question))
    if split == "train" and fingerprints.unit_interval(settings.seed, group) < settings.val_fraction:
        split = "val"
    try:
        sample = Sample(
            id=record.id,
            source=source,
            split=split,
            question=safe_question(question),
            reference=record.reference.strip(),
            images=tuple(image.data for image in images),
            modality=record.modality or (modality_tag(read_header(raw[0])) if raw and is_dicom(raw[0]) else None),
            answer_kind=record.answer_kind,  # type: ignore[arg-type]  # checked by Sample itself
            aliases=tuple(alias for alias in aliases if answer_key(alias) is not None),
            group=record.group,
            extra=record.extra,
        )
    except DataError as error:
        raise Unfit("bad_field", f"{error.problem}"[:160]) from error
    if fault := reference_fault(sample):
        raise Unfit("unscorable_answer", fault)
    keys = [fingerprints.sha256(image.data) for image in images]
    facts = RowFacts(
        id=sample.id,
        source=source,
        split=split,
        question=sample.question[:200],
        answer=sample.reference[:200],
        modality=sample.modality or "",
        answer_kind=sample.answer_kind,
        n_tokens=0,
        sizes=[(image.width, image.height) for image in images],
        actions=[image.action for image in images],
        notes=sorted({note for image in images for note in image.notes}),
        stated_split=record.split,
        group=record.group,
        question_key=fingerprints.text_key(sample.question),
        row_key=fingerprints.text_key(sample.question, *keys) + (answer_key(sample.reference) or sample.reference),
        words=len(fingerprints.normalise(sample.question).split()),
        signature=fingerprints.minhash(sample.question),
        image_keys=keys,
        image_prints=[fingerprints.image_print(image.pixels) for image in images],
    )
    return PreparedRow(sample, facts, _thumbnail(images))


def _thumbnail(images: Sequence[PreparedImage]) -> str:
    return base64.b64encode(thumbnail(images[0].pixels)).decode() if images else ""


def _check_fields(record: Record) -> None:
    for name in ("id", "question", "reference"):
        value: str = getattr(record, name)
        if not value.strip():
            raise Unfit("no_answer" if name == "reference" else "bad_field", f"{name!r} is empty")
        if len(value) > _MAX_CHARS:
            raise Unfit("bad_field", f"{name!r} has {len(value)} characters")
        if "\x00" in value:
            raise Unfit("bad_field", f"{name!r} holds a NUL character")


def reference_fault(sample: Sample) -> str | None:
    """Return why a perfect response with the reference would not be paid in full, or None.

    A row that no policy can win teaches nothing. The components are those of the `strict` preset; judge and embedder
    are taken to agree, so that what is left is what the components themselves find.
    """
    from reward_fns import ScoringInput

    response = format_response(sample.modality, "Reasoning.", sample.reference)
    parsed = parse_response(response)
    if parsed.problems:
        return f"a perfect response with it has the problems {', '.join(parsed.problems)}"
    if parsed.scorable_answer != sample.reference:
        return "the parser reads another answer out of a perfect response"
    item = ScoringInput(
        response, sample.reference, sample.question, sample.modality, sample.aliases, sample.answer_kind, sample.id
    )
    loop, composite = _scoring()
    try:
        score = loop.run_until_complete(composite.score(item))
    except MedixError as error:
        return f"a component fails on it: {type(error).__name__}"
    short = [name for name, part in score.components.items() if part.applicable and part.value < 1.0]
    return f"it earns {score.total:.3f}; less than 1 from {', '.join(short)}" if short else None


@functools.cache
def _scoring() -> tuple[asyncio.AbstractEventLoop, Any]:
    """Return a loop and a composite of this process: to start a loop for each row would cost more than the scoring."""
    from reward_fns import AssumedScorers, build_composite

    return asyncio.new_event_loop(), build_composite({"preset": "strict"}, AssumedScorers(judge_says=True, cosine=1.0))
