"""How a judge is asked, and how its reply is read: strictly, or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from reward_fns.scorers.chat import Sampling
from reward_fns.scorers.judge_prompt import FILLING, load_judge_prompt, neutralise
from reward_fns.scorers.types import JudgeRequest
from reward_fns.scorers.verdict import CHOICES, parse_verdict

RubricName = Literal["verdict", "rubric", "report"]
PROMPTS: Final = Path(__file__).resolve().parent.parent / "prompts"
DIMENSIONS: Final = ("semantic", "reasoning", "context")
"""Semantic correctness, soundness of the reasoning, fit with the image or passage; 0 to 5 each."""
MAX_FIELD_CHARS: Final = 6000
_THINKING = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{(question|passage|reference|accepted|reasoning|candidate)\}")


@dataclass(frozen=True)
class Vote:
    """One independent reading by a judge. `score` is in [0, 1]: 0 or 1 for questions, fifths for reports."""

    score: float
    raw: str
    dimensions: Mapping[str, float | None]
    why: str = ""


@dataclass(frozen=True)
class Case:
    """What a judge is shown. Texts are raw: they are neutralised here."""

    question: str
    reference: str
    candidate: str
    reasoning: str = ""
    passage: str = ""
    aliases: tuple[str, ...] = ()


def prompt_text(rubric: RubricName, case: Case) -> str:
    """The judge's prompt; data stays inside fields that it can not close."""
    if rubric == "verdict":
        request = JudgeRequest(case.reference, case.candidate, case.question, case.aliases)
        return load_judge_prompt().fill(request)
    template = (PROMPTS / f"{rubric}.txt").read_text(encoding="utf-8").strip()
    values = {
        "question": case.question,
        "passage": case.passage or "(none)",
        "reference": case.reference,
        "accepted": "\n".join(case.aliases) or "(nothing else)",
        "reasoning": case.reasoning or "(none given)",
        "candidate": case.candidate,
    }
    return _PLACEHOLDER.sub(lambda match: _field(values[match[1]]), template)


def _field(text: str) -> str:
    cut = len(text) - MAX_FIELD_CHARS
    return neutralise(text[:MAX_FIELD_CHARS]) + (f"\n(cut here: {cut} more characters)" if cut > 0 else "")


def rubric_version(rubric: RubricName) -> str:
    """Changes with the prompt's wording and how its fields are filled; part of every judgement's key."""
    case = Case("q", "r", "c", "t", "p", ("a",))
    return hashlib.sha256(f"{FILLING}\n{prompt_text(rubric, case)}".encode()).hexdigest()[:12]


def sampling(rubric: RubricName, constrained: bool, temperature: float, seed: int | None, max_tokens: int) -> Sampling:
    """How the judge decodes; `constrained` asks the server to hold it to the form."""
    if rubric == "verdict":
        choice = CHOICES if constrained else ()
        return Sampling(max_tokens=8 if constrained else max_tokens, temperature=temperature, seed=seed, choice=choice)
    schema = _schema(rubric) if constrained else None
    return Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed, json_schema=schema)


def _schema(rubric: RubricName) -> dict[str, Any]:
    grade: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0, "maximum": 5}
    fields: dict[str, Any] = {**{name: grade for name in DIMENSIONS}, "why": {"type": "string", "maxLength": 400}}
    if rubric == "rubric":
        fields["verdict"] = {"type": "string", "enum": list(CHOICES)}
    else:
        fields["score"] = {"type": "integer", "minimum": 0, "maximum": 5}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read_vote(rubric: RubricName, reply: str) -> Vote | None:
    """The vote, or None where the reply is not of the form: no number is ever guessed from prose."""
    if rubric == "verdict":
        correct = parse_verdict(reply)
        return None if correct is None else Vote(float(correct), reply, {})
    text = _THINKING.sub("", reply).strip()
    fenced = _FENCE.match(text)
    try:
        data = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    expected = set(_schema(rubric)["properties"])
    if not isinstance(data, dict) or not set(data) <= expected:
        return None
    if any(not _is_grade(data.get(name)) for name in DIMENSIONS):
        return None
    dimensions = {name: None if data.get(name) is None else float(data[name]) for name in DIMENSIONS}
    why = data["why"][:400] if isinstance(data.get("why"), str) else ""
    if rubric == "rubric":
        verdict = data.get("verdict")
        return Vote(float(verdict == "YES"), reply, dimensions, why) if verdict in CHOICES else None
    score = data.get("score")
    return Vote(float(score) / 5, reply, dimensions, why) if score is not None and _is_grade(score) else None


def _is_grade(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and 0 <= value <= 5)
