"""From a judge's reply to a verdict: beyond doubt, or not at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from medix.sample import NOT_APPLICABLE
from reward_fns.scorers.types import VerdictParse

CHOICES: Final = ("YES", "NO")
VERDICT_SCHEMA: Final = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": list(CHOICES)}},
    "required": ["verdict"],
    "additionalProperties": False,
}
Constraint = Literal["auto", "choice", "json", "none"]

END_OF_THOUGHT: Final = re.compile(r"</think(?:ing)?>|◁/think▷|\[/THINK\]")
FENCE: Final = re.compile(r"\A```\w*\s*(.*?)\s*```\Z", re.DOTALL)
_ONE_WORD = re.compile(
    r"[\s\"'`*_(\[]*(?:(?:final )?(?:answer|verdict)[*_]*\s*:[\s*_]*)?(YES|NO)[\s\"'`*_)\].!]*", re.IGNORECASE
)


def parse_verdict(reply: str, parse: VerdictParse = "strict") -> bool | None:
    """Return True for YES, False for NO, None where the reply says neither beyond doubt.

    `strict` takes the one word after any reasoning, bare, bold or as `{"verdict": ...}`, fenced or not. `substring` is
    the released rule (YES anywhere), but a reply with neither word is not understood instead of NO.

    >>> parse_verdict("It fits.</think> **Yes**."), parse_verdict("NO, but YES"), parse_verdict("NO", "substring")
    (True, None, False)
    """
    if parse == "substring":
        return True if "YES" in reply.upper() else False if "NO" in reply.upper() else None
    text = after_thought(reply)
    if text.startswith("{"):
        text = _json_verdict(text)
    match = _ONE_WORD.fullmatch(text)
    return None if match is None else match[1].upper() == "YES"


def after_thought(reply: str) -> str:
    """Return what a reply says after its reasoning, without a code fence around it."""
    text = END_OF_THOUGHT.split(reply)[-1].strip()
    fenced = FENCE.match(text)
    return fenced[1] if fenced else text


def _json_verdict(text: str) -> str:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return str(data["verdict"]) if isinstance(data, dict) and set(data) == {"verdict"} else ""


def yes_probability(entries: Sequence[Mapping[str, Any]]) -> float:
    """Return P(YES) / (P(YES) + P(NO)) at the first position that can start either word; -1 where none can.

    A word may be cut into several tokens ("N" + "O"), so every token that begins a word counts for it.
    """
    for entry in entries:
        mass = {"YES": 0.0, "NO": 0.0}
        options = entry.get("top_logprobs")
        for option in options if isinstance(options, list) else ():
            if not isinstance(option, Mapping):
                continue
            token, logprob = str(option.get("token", "")).strip().upper(), option.get("logprob")
            for word in CHOICES:
                if token and word.startswith(token) and isinstance(logprob, (int, float)) and -700 < logprob <= 0:
                    mass[word] += math.exp(logprob)
        if sum(mass.values()) > 0:
            return mass["YES"] / sum(mass.values())
    return NOT_APPLICABLE
