"""The judge made of rules, in the form of a chat completion: in this process, or behind the server of the demo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from reward_fns.clinical_rules import MODEL
from reward_fns.clinical_rules.rule_judge import RuleJudge
from reward_fns.scorers.judge_prompt import NOTHING_ELSE, read_fields

RULE_JUDGE_URL: Final = "rule-judge"
"""An address like any other in `medix.scorer.judge.urls` and `--judge-url`: it needs no server."""


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
