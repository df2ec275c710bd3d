"""From a judge's reply to a verdict: strictly, or not at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from reward_fns.scorers.types import NOT_OFFERED, VerdictParse

CHOICES: Final = ("YES", "NO")
VERDICT_SCHEMA: Final = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": list(CHOICES)}},
    "required": ["verdict"],
    "additionalProperties": False,
}
Constraint = Literal["auto", "choice", "json", "none"]

_REASONING = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_ONE_WORD = re.compile(r"[\s\"'`*(\[]*(YES|NO)[\s\"'`*)\].!]*", re.IGNORECASE)


def parse_verdict(reply: str, parse: VerdictParse = "strict") -> bool | None:
    """True for YES, False for NO, None where the reply says neither beyond doubt.

    `strict` takes the one word, bare or as `{"verdict": ...}`, after an optional closed reasoning block.
    `substring` is the released rule (YES anywhere), but a reply with neither word is not understood instead of NO.
    """
    if parse == "substring":
        return True if "YES" in reply.upper() else False if "NO" in reply.upper() else None
    text = _REASONING.sub("", reply).strip()
    if text.startswith("{"):
        text = _json_verdict(text)
    match = _ONE_WORD.fullmatch(text)
    return None if match is None else match[1].upper() == "YES"


def _json_verdict(text: str) -> str:
    try:
        data = json.loads(text)
    except ValueError:
        return ""
    return str(data["verdict"]) if isinstance(data, dict) and set(data) == {"verdict"} else ""


def yes_probability(entries: Sequence[Mapping[str, Any]]) -> float:
    """P(YES) / (P(YES) + P(NO)) at the first position that can start either word; -1 where none can.

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
                if token and word.startswith(token) and isinstance(logprob, (int, float)):
                    mass[word] += math.exp(min(float(logprob), 0.0))
        total = mass["YES"] + mass["NO"]
        if total > 0:
            return mass["YES"] / total
    return NOT_OFFERED
