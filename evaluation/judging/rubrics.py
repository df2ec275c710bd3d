"""How a judge is asked, and how its reply is read: strictly, or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from evaluation.run_folder import Row, Vote
from medix.errors import ConfigError
from medix.files import read_mapping
from medix.options import Count, read_options
from reward_fns.scorers.chat import Sampling
from reward_fns.scorers.judge_prompt import FILLING, load_judge_prompt, neutralise
from reward_fns.scorers.types import JudgeRequest
from reward_fns.scorers.verdict import CHOICES, VERDICT_SCHEMA, after_thought, parse_verdict

RubricName = Literal["verdict", "rubric", "report", "points", "released", "released_report"]
PROMPTS: Final = Path(__file__).resolve().parent.parent / "prompts"
DIMENSIONS: Final = ("semantic", "reasoning", "context")
"""Semantic correctness, soundness of the reasoning, fit with the image or passage; 0 to 5 each."""
MAX_FIELD_CHARS: Final = 6000
_PLACEHOLDER = re.compile(r"\{(question|passage|reference|accepted|reasoning|candidate|criterion)\}")


@dataclass(frozen=True)
class Case:
    """What a judge is shown. Texts are raw: they are neutralised here."""

    question: str
    reference: str
    candidate: str
    reasoning: str = ""
    passage: str = ""
    aliases: tuple[str, ...] = ()
    points: tuple[tuple[str, float], ...] = ()
    """Criteria and what each adds, for the rubric `points`."""

    @classmethod
    def of(cls, row: Row, candidate: str, reasoning: str) -> Case:
        """Return the case of an item's answer."""
        texts = row.shown_question, row.shown_reference, candidate, reasoning, row.shown_passage
        return cls(*texts, row.aliases, row.points)


@dataclass(frozen=True)
class JudgeWording:
    """The wording of another protocol's judge, from a YAML file: `--judge-prompts`."""

    question: str
    """With `{question}`, `{reference}` and `{candidate}`; the reply is JSON with a `score` of 0 or 1."""
    report: str = ""
    """The same for reports, with a `score` from 0 to 5."""
    again: str = ""
    """Said before each further round of the same conversation."""
    rounds: Count = 1
    """Odd; the majority decides a question, the mean a report."""

    @classmethod
    def read(cls, path: Path) -> JudgeWording:
        """Read the file.

        Raises:
            ConfigError: it is missing, lacks a placeholder, or asks for an even number of rounds.
        """
        if not path.is_file():
            raise ConfigError(f"There is no file of judge prompts at {path}.", "Name an existing file.")
        wording = read_options(cls, read_mapping(path), path.name)
        for text in filter(None, (wording.question, wording.report)):
            if set(_PLACEHOLDER.findall(text)) < {"reference", "candidate"}:
                raise ConfigError(f"A prompt in {path} lacks {{reference}} or {{candidate}}.", f"Edit {path}.")
        if wording.rounds % 2 == 0 or (wording.rounds > 1 and not wording.again):
            raise ConfigError(
                f"{path} asks for {wording.rounds} rounds.", "Use an odd number, with the text of `again` above 1."
            )
        return wording


def prompt_text(rubric: RubricName, case: Case, wording: JudgeWording | None = None, criterion: str = "") -> str:
    """Return the judge's prompt. In our own wordings data stays inside fields that it can not close."""
    if rubric == "verdict":
        request = JudgeRequest(case.reference, case.candidate, case.question, case.aliases)
        return load_judge_prompt().fill(request)
    if wording is not None and rubric in ("released", "released_report"):
        template = wording.question if rubric == "released" else wording.report
    else:
        template = _template(rubric)
    values = {
        "question": case.question,
        "passage": case.passage or "(none)",
        "reference": case.reference,
        "accepted": "\n".join(case.aliases) or "(nothing else)",
        "reasoning": case.reasoning or "(none given)",
        "candidate": case.candidate,
        "criterion": criterion,
    }
    return _PLACEHOLDER.sub(lambda match: _shown(values[match[1]]), template)


@cache
def _template(rubric: RubricName) -> str:
    return (PROMPTS / f"{rubric}.txt").read_text(encoding="utf-8").strip()


def _shown(text: str) -> str:
    cut = len(text) - MAX_FIELD_CHARS
    return neutralise(text[:MAX_FIELD_CHARS]) + (f"\n(cut here: {cut} more characters)" if cut > 0 else "")


@cache
def version(rubric: RubricName, wording: JudgeWording | None = None) -> str:
    """Return what changes with the prompt's wording and how its fields are filled; part of every judgement's key."""
    case = Case("q", "r", "c", "t", "p", ("a",))
    more = f"{wording.again}\n{wording.rounds}" if wording is not None else ""
    text = f"{FILLING}\n{prompt_text(rubric, case, wording, 'k')}{more}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sampling(rubric: RubricName, temperature: float, seed: int | None, max_tokens: int) -> Sampling:
    """Return how the judge decodes, and that its server is to hold it to the form."""
    if rubric == "verdict":
        return Sampling(8, temperature, seed=seed, choice=CHOICES, json_schema=VERDICT_SCHEMA, free_tokens=max_tokens)
    schema = None if rubric.startswith("released") else _schema(rubric)
    return Sampling(max_tokens, temperature, seed=seed, json_schema=schema, free_tokens=2 * max_tokens)


def _schema(rubric: RubricName) -> dict[str, Any]:
    grade = {"minimum": 0, "maximum": 5}
    fields: dict[str, Any] = {"why": {"type": "string", "maxLength": 400}}
    if rubric != "points":
        fields = {name: {"type": ["integer", "null"], **grade} for name in DIMENSIONS} | fields
    last: dict[str, dict[str, Any]] = {
        "points": {"met": {"type": "boolean"}},
        "rubric": {"verdict": {"type": "string", "enum": list(CHOICES)}},
        "report": {"score": {"type": "integer", **grade}},
    }
    fields |= last[rubric]
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read_vote(rubric: RubricName, reply: str) -> Vote | None:
    """Return the vote, or None if the reply is not of the form: no number is ever guessed from prose."""
    if rubric == "verdict":
        correct = parse_verdict(reply)
        return None if correct is None else Vote(float(correct), reply)
    try:
        data = json.loads(after_thought(reply))
    except (ValueError, RecursionError):
        return None
    match rubric, data:
        case _, {"score": bool()}:
            return None
        case "rubric", {"verdict": "YES" | "NO" as verdict}:
            score = float(verdict == "YES")
        case "points", {"met": bool(met)}:
            score = float(met)
        case "released", {"score": 0 | 1 as grade}:
            return Vote(float(grade), reply)
        case "report" | "released_report", {"score": int(grade)} if 0 <= grade <= 5:
            score = grade / 5
        case _:
            return None
    if rubric == "released_report":
        return Vote(score, reply)
    grades = {name: data.get(name) for name in DIMENSIONS} if rubric != "points" else {}
    is_whole = all(grade is None or (type(grade) is int and 0 <= grade <= 5) for grade in grades.values())
    if not is_whole or not set(data) <= set(_schema(rubric)["properties"]):
        return None
    return Vote(score, reply, grades, data["why"][:400] if isinstance(data.get("why"), str) else "")


def combine(rubric: RubricName, votes: Sequence[Vote | None], points: Sequence[tuple[str, float]] = ()) -> float | None:
    """Return the score that the votes asked for make together, or None where too many of them are missing.

    A question is decided by the majority of the votes asked for, not of those that came; a report has the mean, of
    more than half of them; criteria add their points, all of them, over the most that can be reached.
    """
    given = [vote.score for vote in votes if vote is not None]
    if rubric == "points":
        if len(given) < len(votes):
            return None
        reached = sum(score * worth for score, (_, worth) in zip(given, points, strict=True))
        return min(1.0, max(0.0, reached / sum(worth for _, worth in points if worth > 0)))
    if 2 * len(given) <= len(votes):
        return None
    if rubric in ("report", "released_report"):
        return sum(given) / len(given)
    yes = sum(given)
    return 1.0 if 2 * yes > len(votes) else 0.0 if 2 * (len(given) - yes) > len(votes) else None
