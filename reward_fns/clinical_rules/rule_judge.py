"""Whether two short answers say the same, by rules: synonyms folded, then compared part by part.

`rule-judge` is these rules in the place of a judge, for demos, tests and drills: no substitute for a language model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

from annotated_types import MinLen
from pydantic import TypeAdapter

from medix.errors import ConfigError
from medix.same_answer import answer_key, same_answer
from reward_fns.clinical_rules.statement import Statement, read_tokens
from reward_fns.clinical_rules.words import lexicon, tokens
from reward_fns.scorers.judge_prompt import NOTHING_ELSE, read_fields

_ORDER_MATTERS: Final = frozenset(
    ("without", "versus", "than", "after", "before", "over", "greater", "less", "not", "but", "from", "to", "vs")
) | {"<", ">", "≤", "≥", "then", "and", "or", "per"}
_ENOUGH_TOKENS: Final = 400
"""An answer longer than this is no short answer: a judge reads it."""

MODEL: Final = "rule-judge"
"""Its model name at the endpoint."""
RULE_JUDGE_URL: Final = "rule-judge"
"""An address like any other in `medix.scorer.judge.urls` and `--judge-url`: it needs no server."""

Concepts = dict[tuple[str, ...], tuple[str, ...]]


class RuleJudge:
    """Equality of short answers up to spelling, word order, units and a table of synonyms.

    Args:
        synonyms: groups of equivalent phrases, in addition to the shipped ones.
    """

    def __init__(self, synonyms: Iterable[Sequence[str]] = ()) -> None:
        self._concepts = {**_shipped(), **_concepts(synonyms)}

    def same(self, reference: str, candidate: str, aliases: Sequence[str] = ()) -> bool:
        """Return whether `candidate` states `reference` or one of its aliases."""
        return any(self._equal(wording, candidate) for wording in (reference, *aliases))

    def _equal(self, reference: str, candidate: str) -> bool:
        if same_answer(reference, candidate):
            return True
        left = _fold(reference, self._concepts)
        right = _fold(candidate, self._concepts)
        if not left or not right or answer_key(reference) is None or answer_key(candidate) is None:
            return False
        if left == right:
            return True
        stated, claimed = read_tokens(left, "," in reference[:5]), read_tokens(right, "," in candidate[:5])
        if stated.words and _ORDER_MATTERS.intersection(left + right):
            return False
        return _has_content(stated) and len(stated.axes.get("side", ())) < 2 and stated == claimed


def states_the_same(reference: str, candidate: str) -> bool:
    """Return whether the shipped table of synonyms, and rules of spelling, order and units, call both the same."""
    return _shipped_rules().same(reference, candidate)


@lru_cache(maxsize=8192)
def read_folded(text: str) -> Statement | None:
    """Return a phrase taken apart, after the shipped synonyms have been folded (`T2DM`: type 2 diabetes mellitus).

    Returns:
        None for a text of more than 400 tokens, which is no phrase and is not read: a judge reads it.
    """
    folded = _fold(text, _shipped())
    return None if folded is None else read_tokens(folded, "," in text[:5])


def _has_content(statement: Statement) -> bool:
    # Two sides in one phrase: which finding is on which is not ours to guess.
    return bool(statement.words or statement.axes or statement.quantities or statement.labels or statement.reply)


def _fold(text: str, concepts: Concepts) -> list[str] | None:
    """Return the tokens with every known wording, longest first, replaced by the name of its meaning, or None."""
    found = tokens(text)
    folded = list[str]()
    position = 0
    if len(found) > _ENOUGH_TOKENS:
        return None
    longest = max(map(len, concepts), default=0)
    while position < len(found):
        for length in range(min(longest, len(found) - position), 0, -1):
            name = concepts.get(tuple(found[position : position + length]))
            if name is not None:
                folded += name
                position += length
                break
        else:
            folded.append(found[position])
            position += 1
    return folded


def _concepts(groups: Iterable[Sequence[str]]) -> Concepts:
    """Return tokens of each wording -> tokens of its meaning's name; a wording in two groups has its first meaning."""
    concepts: Concepts = {}
    for group in groups:
        name = tuple(tokens(group[0]))
        for phrase in group:  # the name too, so that a shorter wording inside it is not replaced
            wording = tuple(tokens(phrase))
            if wording:
                concepts.setdefault(wording, name)
    return concepts


@lru_cache(maxsize=1)
def _shipped() -> Concepts:
    return _concepts(lexicon().synonyms)


@lru_cache(maxsize=1)
def _shipped_rules() -> RuleJudge:
    return RuleJudge()


class RuleJudgeModel:
    """Answers the bodies of chat completions. It reads the fields of our own prompt and is no language model."""

    def __init__(self, synonyms: Iterable[Sequence[str]] = ()) -> None:
        self._rules = RuleJudge(synonyms)

    def complete(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and the JSON object that a server would answer this request body with."""
        try:
            prompt = body["messages"][-1]["content"]
        except (KeyError, IndexError, TypeError):
            return _error(400, "A JSON body with messages is expected.")
        if body.get("model") != MODEL:
            return _error(404, f"The model {body.get('model')!r} does not exist, only {MODEL!r}.")
        fields = read_fields(prompt) if isinstance(prompt, str) else None
        if fields is None:
            return _error(400, "The rule-judge reads the delimited fields of our judge prompt and no other text.")
        accepted = fields["ALSO ACCEPTED"]
        aliases = [] if accepted == NOTHING_ELSE else accepted.split("\n")
        verdict = "YES" if self._rules.same(fields["REFERENCE"], fields["CANDIDATE"], aliases) else "NO"
        text = f'{{"verdict": "{verdict}"}}' if "response_format" in body else verdict
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 1, "total_tokens": len(prompt) // 4 + 1}
        return 200, {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "code": status}}


def load_synonyms(path: Path) -> list[list[str]]:
    """Return groups of equivalent phrases from a JSON file: a list of lists of texts.

    Raises:
        ConfigError: no such file, or another content.
    """
    try:
        return TypeAdapter(list[Annotated[list[str], MinLen(1)]]).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        problem = f"The synonyms at {path} can not be read: {error}"
        raise ConfigError(problem, 'Write [["mi", "heart attack"], ...] and correct --synonyms.') from error
