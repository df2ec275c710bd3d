"""One judge: independent votes on a case, each its own conversation, or the rounds of one conversation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.backends.endpoint import check_client, describe_failure
from evaluation.concurrency import FATAL_KINDS
from evaluation.item import content_hash
from evaluation.judging import rubrics
from evaluation.judging.rubrics import Case, JudgeWording, RubricName
from evaluation.run_folder import Judgement, Vote
from medix.errors import ConfigError
from reward_fns.clinical_rules.rule_judge import MODEL as RULE_JUDGE
from reward_fns.clinical_rules.rule_judge import RULE_JUDGE_URL
from reward_fns.scorers.chat import ChatClient, ChatReply, Message, user_message
from reward_fns.scorers.endpoints import EndpointOptions
from reward_fns.scorers.retry import EndpointError


@dataclass(frozen=True)
class JudgeOptions:
    """Which judge, and how often it is asked."""

    model: str
    endpoint: EndpointOptions
    votes: int = 1
    temperature: float | None = None
    """None: 0 for one vote, 0.7 for several, so that they are independent readings and not one repeated."""
    max_tokens: int = 1024
    deadline_s: float = 300.0
    tries: int = 2
    """Calls for one vote when the reply is not of the form."""
    sees_images: bool = False
    wording: JudgeWording | None = None

    def __post_init__(self) -> None:
        if self.votes < 1 or self.votes % 2 == 0:
            raise ConfigError(f"{self.votes} votes can tie.", "Use an odd number, e.g. --votes 3.")
        if RULE_JUDGE_URL in self.endpoint.urls and self.model != RULE_JUDGE:
            raise ConfigError(
                f"The rule-judge has no model {self.model!r}.", f"Leave --judge-model out, or use {RULE_JUDGE}."
            )

    @property
    def sampled_at(self) -> float:
        return self.temperature if self.temperature is not None else (0.0 if self.votes == 1 else 0.7)

    def settings(self) -> dict[str, Any]:
        """Return what of a judge decides its judgements; not where it is."""
        names = {"model": self.model, "votes": self.votes, "temperature": self.sampled_at}
        wording = {} if self.wording is None else {"wording": content_hash(asdict(self.wording))[:12]}
        return names | {"sees_images": self.sees_images} | wording

    def key(self, rubric: RubricName, case: Case, images: Sequence[str] = ()) -> str:
        """Return the address of a judgement: of the case as shown, the judge's settings and the prompt's wording."""
        return judgement_key(self.settings(), rubric, rubrics.version(rubric, self.wording), case, images)

    def refuse(self, named: Iterable[RubricName]) -> None:
        """Raise a ConfigError if this is the rule-judge and a rubric needs a language model."""
        unread = sorted(set(named) - {"verdict", "rubric"})
        if self.model == RULE_JUDGE and unread:
            raise ConfigError(
                f"The rule-judge compares short answers; it can not grade by the rubric {', '.join(unread)}.",
                "Name a language model with --judge-url and --judge-model, or leave out the tasks with reports.",
            )

    async def check(self) -> None:
        """Find out before anything is generated whether this judge can be asked.

        Raises:
            EvaluationError: the endpoint refuses, or is not there.
        """
        client = ChatClient(self.endpoint, self.model, where="--judge-url")
        try:
            if self.model != RULE_JUDGE:  # The rules take their own prompt and nothing else.
                await check_client(client, "--judge-url and --judge-model")
        finally:
            await client.aclose()


def judgement_key(
    settings: Mapping[str, Any], rubric: str, version: str, case: Case, images: Sequence[str] = ()
) -> str:
    """Return the content address of a judgement."""
    texts = (case.question, case.reference, case.candidate, case.aliases)
    # The verdict prompt shows neither reasoning nor passage, so equal answers share one judgement.
    extra = () if rubric == "verdict" else (case.reasoning, case.passage, case.points)
    return content_hash(settings, rubric, version, texts, extra, images if settings["sees_images"] else ())


class Judge:
    """Use from one event loop; `await aclose()` at the end."""

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        self.client = ChatClient(options.endpoint, options.model, where="--judge-url")

    async def judge(self, rubric: RubricName, case: Case, images: Sequence[bytes] = ()) -> Judgement:
        """Ask for all votes at once, and combine them. A failure is never a score."""
        o, asked = self.options, _Asked()
        shown = images if o.sees_images else ()
        if o.wording is not None and rubric.startswith("released"):
            messages = user_message(rubrics.prompt_text(rubric, case, o.wording), shown)
            votes = await self._rounds(rubric, messages, o.wording, asked)
        else:
            criteria = [criterion for criterion, _ in case.points] if rubric == "points" else [""] * o.votes
            texts = [rubrics.prompt_text(rubric, case, criterion=criterion) for criterion in criteria]
            calls = (self._vote(rubric, user_message(text, shown), n, asked) for n, text in enumerate(texts))
            votes = await asyncio.gather(*calls)
        given = tuple(vote for vote in votes if vote is not None)
        score = rubrics.combine(rubric, votes, case.points)
        error = None
        if score is None:
            # Votes are odd in number, so one is missing. Where not all failed by the endpoint it is not given up.
            error = min(asked.errors, key=lambda error: error["kind"] in FATAL_KINDS)
        return Judgement(score, given, error, dict(asked.usage), round(asked.latency_s, 4))

    async def _rounds(
        self, rubric: RubricName, messages: list[Message], wording: JudgeWording, asked: _Asked
    ) -> list[Vote | None]:
        votes: list[Vote | None] = []
        for _ in range(wording.rounds):
            vote = await self._vote(rubric, messages, 0, asked)
            votes.append(vote)
            reply = vote.raw if vote is not None else ""
            messages = [*messages, {"role": "assistant", "content": reply}, *user_message(wording.again)]
        return votes

    async def _vote(self, rubric: RubricName, messages: Sequence[Message], number: int, asked: _Asked) -> Vote | None:
        """Return one vote, or None with the reason in `asked`; a reply that is none is asked for once more.

        The client finds out whether the server can hold the reply to the form, or has to think first.
        """
        o = self.options
        started = asked.latency_s
        said = ""

        def read(reply: ChatReply) -> Vote:
            asked.usage.update(reply.usage)
            asked.latency_s = max(asked.latency_s, started + reply.latency_s)
            vote = rubrics.read_vote(rubric, reply.text)
            # A reply that was cut off or filtered says something else than the judge would have said.
            if vote is not None and reply.finish_reason in ("stop", ""):
                return vote
            found = reply.text[:300]
            fix = "Use a judge that follows the prompt, or raise its tokens."
            raise EndpointError(f"The judge's reply is no vote: {found!r}.", fix, "unusable", final=True, found=found)

        for attempt in range(o.tries):
            how = rubrics.sampling(rubric, o.sampled_at, number + 1000 * attempt, o.max_tokens)
            try:
                vote: Vote = await self.client.complete(messages, how, o.deadline_s, read)
                return vote
            except EndpointError as error:
                if error.kind != "unusable":
                    asked.errors.append(describe_failure(error))
                    return None
                said = error.found
        asked.errors.append({"kind": "unparsed", "detail": said})
        return None

    async def aclose(self) -> None:
        await self.client.aclose()


@dataclass
class _Asked:
    """What the calls for one case cost and met."""

    usage: Counter[str] = field(default_factory=Counter)
    latency_s: float = 0.0
    errors: list[dict[str, str]] = field(default_factory=list)
