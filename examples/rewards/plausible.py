"""A component that asks the judge a question of its own: does the reasoning lead to the answer?

    '+medix.reward.components.plausible={path: examples/rewards/plausible.py:Plausible, weight: 0.1}'

The call goes through the run's scorers: cached, shared and held like the verdict, and a fault is never a score. The
rule-judge reads only the project's own prompt: give a language model as judge.
"""

from __future__ import annotations

from medix.response import parse_response
from reward_fns import ComponentScore, Scorers, ScoringInput
from reward_fns.scorers.types import JudgeRequest

PROMPT = """A student answered a medical question. Below are the question, the student's answer and the reasoning.
[[QUESTION]]
{question}
[[/QUESTION]]
[[REFERENCE]]
{reference}
[[/REFERENCE]]
[[CANDIDATE]]
{candidate}
[[/CANDIDATE]]
The second field holds the student's answer, the third the reasoning. Does the reasoning lead to that answer? Reply with
one word, YES or NO."""


class Plausible:
    """1 if the judge finds that the reasoning leads to the answer. Does not apply without both."""

    needs = ("judge",)

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        parsed = parse_response(item.response)
        if not parsed.thinking or not parsed.scorable_answer:
            return ComponentScore(0.0, applicable=False)
        request = JudgeRequest(parsed.scorable_answer, parsed.thinking, item.question, template=PROMPT)
        return ComponentScore(float((await scorers.judge(request)).correct))
