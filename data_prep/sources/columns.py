"""Which column of a table is what: by the source's own statement, by the user's mapping, by name, by content."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from data_prep.images import EXTENSIONS
from data_prep.records import Unfit
from data_prep.sources.choices import first_option, option_pairs
from data_prep.sources.fields import literal, present, said
from data_prep.sources.splits import TEST, TRAIN, split_of_word, splits_in
from medix.errors import ConfigError
from medix.modality import MODALITIES
from medix.options import suggest
from medix.sample import ANSWER_KINDS

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "question": ("question", "questiontext", "problem", "query", "prompt", "sent1", "instruction", "text"),
    "answer": (
        "answer", "answers", "answertext", "solution", "output", "reference", "groundtruth", "correctanswer",
        "gtanswer", "finaldecision", "target", "response", "caption", "label", "text",
    ),
    "options": ("options", "choices", "answerchoices"),
    "letter": (
        "answeridx", "answerindex", "answerlabel", "answerletter", "cop", "correctoption", "correctchoice",
        "correctidx", "correctindex", "correctletter", "answerkey", "label",
    ),
    "image": (
        "images", "image", "imagename", "imgname", "imagepath", "imgpath", "imagefile", "imgfile", "filename",
        "figurepath", "filepath", "img", "picture", "pictures", "imagebytes", "imagebase64",
    ),
    "id": ("id", "qid", "uid", "questionid", "sampleid", "rowid", "pubid", "pmid", "realidx"),
    "split": ("split", "datasplit", "partition", "subset", "phase", "part", "set"),
    "modality": ("modality", "imagemodality", "imagingmodality"),
    "answer_kind": ("answerkind", "answertype", "questiontype"),
    "aliases": ("aliases", "synonyms"),
    "passage": ("passage", "context", "contexts", "abstract"),
    "headings": ("labels",),
    "group": ("patientid", "patient", "subjectid", "studyid", "caseid"),
    "source": ("source",),
    "language": ("qlang", "language", "lang"),
}  # fmt: skip
"""Role -> names that mean it, letters and digits only, the likeliest first."""
_SECOND: Final = {"instruction": "input", "sent1": "sent2"}
"""A question in two columns."""
_FAMILIES: Final = {
    "options": re.compile(r"(choice|options?|op|opt|ending|answer|ans|alternative|)([a-j0-9])"),
    "image": re.compile(r"(image|img|imagepath|picture)([0-9]{1,2})"),
}
KINDS: Final = {
    "open": "open", "freeform": "open", "closed": "closed", "close": "closed", "yesno": "closed", "binary": "closed",
    "choice": "choice", "multiplechoice": "choice", "mcq": "choice", "singlechoice": "choice", "report": "report",
}  # fmt: skip
MODALITY_WORDS: Final = {
    "ct": "CT_SCAN", "computedtomography": "CT_SCAN", "ctscan": "CT_SCAN", "mri": "MRI_SCAN", "mr": "MRI_SCAN",
    "mriscan": "MRI_SCAN", "magneticresonanceimaging": "MRI_SCAN", "xray": "X_RAY", "radiograph": "X_RAY",
    "cxr": "X_RAY", "chestxray": "X_RAY", "us": "ULTRASOUND", "pet": "PET_SCAN", "oct": "OCT_SCAN",
    "fundus": "FUNDUS_PHOTOGRAPHY", "histopathology": "MICROSCOPY", "pathology": "MICROSCOPY",
    "dermoscopy": "CLINICAL_PHOTOGRAPHY",
} | {re.sub("[^a-z]", "", tag.lower()): tag for tag in MODALITIES}  # fmt: skip
"""Common words for a modality, letters and digits only -> its tag."""
_BY_NAME: Final = (
    "options", "letter", "image", "id", "split", "modality", "answer_kind", "aliases", "source", "language",
)  # fmt: skip
_BASE64_IMAGE: Final = re.compile(r"(iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK|Qk)[A-Za-z0-9+/]{64}")
_NONE: Final = "none"
MAPPED: Final = (*ROLES, "extra")
"""Options of a specification that name a column."""


def plain(name: str) -> str:
    """Return the letters and digits of a column's name in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Columns:
    """What was taken for what in one table."""

    roles: Mapping[str, tuple[str, ...]]
    fixed: Mapping[str, str]
    """Roles with the same text in every row, such as a question for a set of captions."""
    extra: tuple[str, ...]
    unread: tuple[str, ...]
    first_option: int | None = None
    """Number of the first option where options are named by number."""

    def used(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([name for names in self.roles.values() for name in names] + list(self.extra)))

    def values(self, row: Mapping[str, Any], role: str) -> list[Any]:
        """Return the fields of a role that hold something."""
        return [row[name] for name in self.roles.get(role, ()) if present(row.get(name))]

    def text(self, row: Mapping[str, Any], role: str, default: str | None = None) -> str:
        """Return the text of a role. Numbers are text too (an answer may be 5); lists and booleans are refused."""
        if role in self.fixed:
            return self.fixed[role]
        parts = [text_of(row[name], name) for name in self.roles.get(role, ()) if present(row.get(name))]
        if parts:
            return "\n".join(parts)
        if default is not None:
            return default
        raise Unfit("no_answer" if role == "answer" else "bad_field", f"{role!r} is missing or empty")

    def as_json(self) -> dict[str, Any]:
        fixed = {role: [f"={text}"] for role, text in self.fixed.items()}
        taken = {role: list(names) for role, names in self.roles.items()} | fixed
        return {"taken": taken, "extra": list(self.extra), "not_read": list(self.unread)}


def text_of(value: Any, name: str) -> str:
    """Return a field as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        remedy = ": write yes or no" if isinstance(value, bool) else ""
        raise Unfit("bad_field", f"{name!r} is a {type(value).__name__}, not text{remedy}")
    return said(value)


def recognise(
    where: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    mapping: Mapping[str, str],
    declared: Mapping[str, tuple[str, ...]],
    words: Mapping[str, str],
    first_option: int | None = None,
) -> Columns | None:
    """Decide which column is what, from the names and the first rows; None if it is no table of questions.

    Args:
        where: the table's name, for messages.
        mapping: role -> column, as the user says; `none` for no column.
        declared: role -> columns, as the source's own description says.
        words: further names of splits.

    Raises:
        ConfigError: a column that the user names is missing, or what a column means cannot be told.
    """
    finder = _Finder(where, tuple(names), rows, mapping)
    for role, columns in declared.items():
        finder.take(role, [name for name in columns if name in finder.names])
    for role in ROLES:
        finder.by_user(role)
    finder.families()
    for role in _BY_NAME:
        finder.by_name(role, words)
    finder.question_and_answer()
    if "question" not in finder.all_roles() or not finder.has_answer():
        return None
    for role in ("passage", "group"):
        finder.by_name(role, words)
    if "passage" in finder.roles:
        finder.by_name("headings", words)
    finder.by_content(words)
    finder.check_flags()
    finder.check_letters()
    return finder.finish(first_option)


class _Finder:
    """Roles found so far, and the columns that are still free."""

    def __init__(
        self, where: str, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]], mapping: Mapping[str, str]
    ) -> None:
        self.where, self.names, self.rows, self.mapping = where, names, rows, mapping
        self.roles: dict[str, tuple[str, ...]] = {}
        self.fixed: dict[str, str] = {}
        self.refused = {role for role, column in mapping.items() if column == _NONE}
        self.extra = tuple(name for name in mapping.get("extra", "").split(",") if name)
        self._check_known("extra", self.extra)

    def all_roles(self) -> set[str]:
        return {*self.roles, *self.fixed}

    def free(self) -> list[str]:
        taken = {name for names in self.roles.values() for name in names}
        return [name for name in self.names if name not in taken]

    def values(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows if present(row.get(name))]

    def take(self, role: str, names: Iterable[str]) -> None:
        names = tuple(names)
        if names and role not in self.all_roles() and role not in self.refused and role not in self.mapping:
            self.roles[role] = names

    def _check_known(self, role: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.names:
                raise ConfigError(
                    f"{self.where} has no column {name!r}, which ?{role}= names. {suggest(name, self.names)}",
                    f"It has: {', '.join(self.names)}. Correct ?{role}=, or write ?{role}=none.",
                )

    def by_user(self, role: str) -> None:
        stated = self.mapping.get(role)
        if stated is None or stated == _NONE:
            return
        if (role == "question" and stated not in self.names and re.search(r"\s", stated)) or (
            role == "modality" and stated not in self.names and modality_of(stated) in MODALITIES
        ):
            self.fixed[role] = stated
        else:
            columns = (stated,) if stated in self.names else tuple(stated.split("+"))
            self._check_known(role, columns)
            self.roles[role] = columns

    def by_name(self, role: str, words: Mapping[str, str]) -> None:
        if role in self.all_roles() or role in self.refused:
            return
        for wanted in ROLES[role]:
            for name in self.free():
                if plain(name) == wanted and self._fits(role, name, words):
                    self.take(role, (name,))
                    return

    def _fits(self, role: str, name: str, words: Mapping[str, str]) -> bool:
        """Return whether the first rows speak for a name that means something else in other sets."""
        values = self.values(name)
        if role == "id":
            # Rows about one image often share its id; a few repeated ids are duplicates, and are reported as such.
            return len({str(value) for value in values}) >= (0.5 if plain(name) == "id" else 1.0) * len(values)
        if role == "split" and plain(name) != "split":
            return self._names_parts(name, words)
        if role == "letter" and plain(name) == "label":
            return "options" in self.roles
        if role == "headings":
            return all(isinstance(value, list) for value in values)
        if role == "answer_kind" and plain(name) != "answerkind":
            return any(plain(str(value)) in KINDS for value in values)
        if role == "source":
            return len({str(value) for value in values}) <= 20
        return True

    def families(self) -> None:
        """Take columns that are numbered or lettered together: `opa`..`opd`, `Choice A`.., `image_1`.."""
        for role, pattern in _FAMILIES.items():
            found: dict[str, list[tuple[str, str]]] = {}
            for name in self.free():
                if match := pattern.fullmatch(plain(name)):
                    found.setdefault(match[1], []).append((match[2].zfill(2), name))
            for prefix, members in found.items():
                members.sort()
                first = members[0][0].lstrip("0") or "0"
                lettered = prefix or all(len(name.strip()) == 1 for _, name in members)
                if first in ("a", "0", "1") and lettered and (len(members) > 1 or role == "image"):
                    self.take(role, [name for _, name in members])

    def question_and_answer(self) -> None:
        """Take both; a name that may be either, such as `text`, is what the other is not."""
        for role, other in (("question", "answer"), ("answer", "question")):
            for wanted in ROLES[role]:
                name = next((name for name in self.free() if plain(name) == wanted), None)
                if name is None or role in self.all_roles() or role in self.refused:
                    continue
                elsewhere = other in self.all_roles() or any(
                    plain(free) in ROLES[other] for free in self.free() if free != name
                )
                if wanted != "text" or elsewhere:
                    second = next((n for n in self.free() if plain(n) == _SECOND.get(wanted)), None)
                    self.take(role, (name,) if second is None else (name, second))

    def has_answer(self) -> bool:
        return "answer" in self.all_roles() or {"letter", "options"} <= self.all_roles()

    def by_content(self, words: Mapping[str, str]) -> None:
        """Take a free column for what its values are, if they can be only one thing."""
        for role in ("split", "image", "options"):
            if role in self.all_roles() or role in self.refused:
                continue
            found = [name for name in self.free() if self._looks_like(role, name, words)]
            if len(found) > 1:
                raise ConfigError(
                    f"In {self.where} each of the columns {', '.join(found)} looks like the {role} column.",
                    f"Name the right one, e.g. ?{role}={found[0]}, or write ?{role}=none.",
                )
            self.take(role, found)

    def check_flags(self) -> None:
        """Refuse a column such as `is_test` whose values say yes or no: held-out rows would train."""
        if "split" in self.all_roles() or "split" in self.refused:
            return
        for name in self.free():
            values = {said(value).lower() for value in self.values(name)}
            if (parts := splits_in(name)) and values and values <= {"0", "1", "true", "false", "yes", "no"}:
                part = min(parts)
                other = TEST if part == TRAIN else TRAIN
                raise ConfigError(
                    f"The column {name} of {self.where} seems to say which rows are of the {part} part.",
                    f"Write ?split={name}&{part}=1,true,yes&{other}=0,false,no, or ?split=none if it is no part.",
                )

    def _looks_like(self, role: str, name: str, words: Mapping[str, str]) -> bool:
        values = self.values(name)
        if role == "split":
            return self._names_parts(name, words)
        if role == "image":
            return bool(values) and sum(map(looks_like_image, values)) >= 0.8 * len(values)
        return sum(len(_pairs(v)) > 1 for v in values) >= 0.8 * len(values) > 0 and self._holds_answers(name)

    def _names_parts(self, name: str, words: Mapping[str, str]) -> bool:
        """Return whether a column names parts of the set, as `train` and `test` or `test_freeform` do.

        Raises:
            ConfigError: some of its values do, others are no known names.
        """
        values = {v if isinstance(v, str) and len(v) < 25 else "" for v in self.values(name)}
        known = {v: split_of_word(v, words) for v in values}
        named = set().union(*(splits_in(v, words) for v in values)) if len(values) <= 20 and "" not in values else set()
        if not named or named == {TRAIN} == set(known.values()):
            return False
        if unknown := sorted(v for v, split in known.items() if split is None):
            raise ConfigError(
                f"The column {name} of {self.where} seems to name parts of the set, but {', '.join(unknown[:5])} is no "
                "known name.",
                f"Map them, e.g. ?split={name}&train={unknown[0]}, or write ?split=none.",
            )
        return True

    def _holds_answers(self, name: str) -> bool:
        """Return whether most answers are an option of a column, by letter, number or text."""
        answers = self.roles.get("answer") or self.roles.get("letter") or ()
        hits = [
            str(row.get(answers[0])).strip().lower()
            in {part.strip().lower() for pair in _pairs(row[name]) for part in pair}
            for row in self.rows
            if answers and _pairs(row.get(name))
        ]
        return sum(hits) >= 0.8 * len(hits) > 0

    def check_letters(self) -> None:
        """Refuse a table whose answers are letters of options that were not found."""
        if "options" in self.all_roles() or "answer" not in self.roles or "options" in self.refused:
            return
        wrong = [name for name in self.free() if re.match(r"distractor|(incorrect|wrong)(answer|option)", plain(name))]
        if wrong:
            raise ConfigError(
                f"The columns {', '.join(wrong)} of {self.where} hold wrong options, and no column was taken for all.",
                "Add a column with all options in the order to ask them, or leave them out with ?options=none.",
            )
        answers = [str(value).strip() for value in self.values(self.roles["answer"][0])]
        bare = [a for a in answers if re.fullmatch(r"[A-H][.):]?", a)]
        question = self.roles.get("question", ("",))[0]
        inline = [v for v in self.values(question) if re.search(r"(?m)\bA\s*[.:)]", str(v))]
        if len(bare) > 0.5 * len(answers) and len(inline) < 0.5 * len(answers):
            raise ConfigError(
                f"The answers of {self.where} are letters, but no column was taken for the options.",
                f"Name the column with ?options=, several with +, out of: {', '.join(self.free())}.",
            )

    def finish(self, first_option: int | None) -> Columns:
        unread = tuple(name for name in self.free() if name not in self.extra)
        return Columns(dict(self.roles), dict(self.fixed), self.extra, unread, self._first_option(first_option))

    def _first_option(self, declared: int | None) -> int | None:
        """Tell whether numbers of options begin at 0 or at 1."""
        role = "letter" if "letter" in self.roles else "answer"
        if "options" not in self.roles or role not in self.roles:
            return None
        if (said := self.mapping.get("first_option")) is not None:
            return None if said == _NONE else int(said)
        name = self.roles[role][0]
        stated = [(row[name], row) for row in self.rows if present(row.get(name))]
        try:
            return first_option(self.roles["options"], stated, role == "letter", declared)
        except Unfit as unfit:
            raise ConfigError(
                f"Whether {name} of {self.where} counts options from 0 or from 1 cannot be told: {unfit.detail}.",
                "Say it: ?first_option=0 or ?first_option=1; ?first_option=none if its numbers are texts.",
            ) from unfit


def _pairs(value: Any) -> list[tuple[str, str]]:
    """Return the options of a list, a mapping, or a text that writes one; none of anything else."""
    with contextlib.suppress(Unfit):
        return option_pairs(value)
    return []


def looks_like_image(value: Any) -> bool:
    """Return whether a field is an image: bytes, base64, or a name with an image's extension."""
    if isinstance(value, bytes):
        return True
    if isinstance(value, list):
        return bool(value) and all(looks_like_image(item) for item in value)
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes)
    if not isinstance(value, str) or "\n" in value[:60]:
        return False
    # A web address may end in a query.
    name = re.split(r"[?#]", value)[0] if "://" in value[:8] else value
    return (
        value.startswith("data:image/")
        or bool(_BASE64_IMAGE.match(value))
        or ("\n" not in name and "." in name and name.rsplit(".", 1)[-1].lower() in {*EXTENSIONS, "gz", "nii"})
    )


def modality_of(stated: str) -> str:
    """Return the tag for a common word, or the text as it is."""
    return stated if stated in MODALITIES else MODALITY_WORDS.get(plain(stated), stated)


def kind_of(columns: Columns, row: Mapping[str, Any], reference: str, question: str, choices: bool) -> str:
    """Return `open`, `closed`, `choice` or `report`."""
    if choices:
        return "choice"
    for name in columns.roles.get("answer_kind", ()):
        stated = str(row.get(name) or "").strip()
        if stated in ANSWER_KINDS or plain(stated) in KINDS:
            return KINDS.get(plain(stated), stated)
        if stated and plain(name) == "answerkind":
            return stated
    if re.fullmatch(r"[A-H]", reference) and re.search(r"(?m)\bA\s*[.:)]", question):
        return "choice"
    return "closed" if reference.lower().rstrip(".") in ("yes", "no") else "open"


def texts(value: Any, name: str) -> tuple[str, ...]:
    """Return a field that holds a list of texts, or several texts between `|` or `#`."""
    if isinstance(value, str):
        found = literal(value)
        value = re.split(r"[|#]", value) if found is value else found
    if not isinstance(value, list) or not all(isinstance(item, str | int | float) and present(item) for item in value):
        raise Unfit("bad_field", f"{name!r} is not a list of texts")
    return tuple(said(item) for item in value if present(item))


def passage_of(columns: Columns, row: Mapping[str, Any]) -> str:
    """Return the passage that a question is about; sections of an abstract keep their headings."""
    for name in columns.roles.get("passage", ()):
        value: Any = row.get(name)
        headings: Any = next(iter(columns.values(row, "headings")), None)
        if isinstance(value, dict):
            headings = value.get("labels")
            value = value.get("contexts", value.get("text"))
        if isinstance(value, list):
            parts = [text_of(part, name) for part in value]
            titles = list(headings or []) if len(headings or []) == len(parts) else [""] * len(parts)
            return "\n".join(f"{title}: {part}" if title else part for title, part in zip(titles, parts, strict=True))
        if present(value):
            return text_of(value, name)
    return ""


def extra_of(columns: Columns, row: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that were asked for beside the known ones; lists and mappings as JSON."""
    found = {}
    for name in columns.extra:
        if present(value := row.get(name)):
            found[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return found
