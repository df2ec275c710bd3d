"""The judge: one verdict a request, from the cache, from an equal call in flight, or from an endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from medix.errors import ScorerError
from medix.options import Count, CountOrZero, NotNegative
from reward_fns.scorers.cache import VerdictCache
from reward_fns.scorers.chat import ChatClient, ChatReply, Sampling, user_message
from reward_fns.scorers.endpoints import EndpointOptions
from reward_fns.scorers.judge_prompt import JUDGE_PROMPT, JudgePrompt, load_judge_prompt, own_prompt
from reward_fns.scorers.retry import EndpointError
from reward_fns.scorers.types import JudgeRequest, RefusedSample, Verdict
from reward_fns.scorers.verdict import CHOICES, VERDICT_SCHEMA, Constraint, parse_verdict, yes_probability

RELEASED_TOKENS = 4
"""Length of a judge's reply in the released reward."""
_encode = json.JSONEncoder(sort_keys=True).encode  # json.dumps would make an encoder for each of thousands of calls


@dataclass(frozen=True)
class JudgeOptions(EndpointOptions):
    """`medix.scorer.judge`."""

    model: str = "rule-judge"
    prompt: str = str(JUDGE_PROMPT)
    max_field_chars: Count = 2000
    max_tokens: Count = 8
    free_tokens: CountOrZero = 2048
    """`max_tokens` for a judge that can not be held to one word or thinks before it answers. 0: no other than that."""
    temperature: NotNegative | None = 0.0
    """null leaves it to the server."""
    top_logprobs: CountOrZero = 5
    """Alternatives asked for, to record P(YES)."""
    constrain: Constraint = "auto"
    """How the reply is held to YES or NO: vLLM's `choice`, a `json` schema, `none`; `auto` finds out."""


class Refusals:
    """Count the samples that a scorer refused, and say what becomes of one: see `RefusedSample`."""

    def __init__(self, on_refusal: str = "stop", max_share: float = 0.0) -> None:
        self._drops, self._max_share = on_refusal == "drop_group", max_share
        self.count = 0

    def error(self, fault: EndpointError, calls: int) -> ScorerError:
        """Return the error to raise for a refused sample; `calls` were asked in all."""
        self.count += 1
        if not self._drops:
            fix = f"{fault.fix} medix.scorer.on_refusal=drop_group goes on without such samples."
            return ScorerError(f"One sample was refused: {fault.problem}", fix, found=fault.found)
        if self.count > self._max_share * max(calls, 100):
            problem = f"{self.count} of {calls} samples were refused, the last so: {fault.problem}"
            fix = f"Use another judge, or raise medix.scorer.max_refused_share ({self._max_share:g}). {fault.fix}"
            return ScorerError(problem, fix, found=fault.found)
        return RefusedSample(f"One sample was refused: {fault.problem}", fault.fix, found=fault.found)


class Judge:
    """Use from one event loop.

    Raises:
        ConfigError: at construction, for a missing URL, key or prompt file.
    """

    def __init__(
        self, options: JudgeOptions, cache: VerdictCache, hold_limit_s: float = 0.0, refusals: Refusals | None = None
    ) -> None:
        self.options, self.cache, self.refusals = options, cache, refusals or Refusals()
        self.client = ChatClient(options, options.model, hold_limit_s=hold_limit_s)
        self.retry = self.client.retry
        self.prompt = load_judge_prompt(Path(options.prompt), options.max_field_chars)
        sampling = [options.temperature, options.max_tokens, options.extra]
        self._settings_key = _encode([self.prompt.version, options.model, *sampling]).encode()
        self.requests = self.calls = self.cache_hits = self.coalesced = self.unparsed = 0
        self.prompt_tokens = self.completion_tokens = 0
        self._in_flight: dict[bytes, asyncio.Task[Verdict]] = {}

    def key(self, request: JudgeRequest) -> bytes:
        """Return the content address: prompt version, model, sampling, and all of the request."""
        asked: list[object] = [request.question, request.reference, request.aliases, request.candidate, request.parse]
        asked += [own for own in (request.seed, request.template) if own is not None]
        return hashlib.sha256(self._settings_key + _encode(asked).encode()).digest()

    async def judge(self, request: JudgeRequest) -> Verdict:
        """Return a verdict. A candidate without a letter or digit is wrong without asking.

        Raises:
            RefusedSample: the judge refuses this sample, and the run goes on without its group.
            ScorerError: there is no verdict to be had (see `RetryPolicy`).
        """
        self.requests += 1
        if request.parse == "strict" and not any(char.isalnum() for char in request.candidate):
            return Verdict(False, "(not asked: the candidate has no letter and no digit)", cached=True, attempts=0)
        key = self.key(request)
        cached = self.cache.get(key)
        if cached is not None:
            self.cache_hits += 1
            return cached
        task = self._in_flight.get(key)
        shared = task is not None
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._ask(key, request))
            task.add_done_callback(lambda done: self._landed(key, done))
        self.coalesced += shared
        # Shielded: a caller that is cancelled must not take the verdict away from the others.
        verdict = await asyncio.shield(task)
        return replace(verdict, coalesced=True) if shared else verdict

    def _landed(self, key: bytes, task: asyncio.Task[Verdict]) -> None:
        self._in_flight.pop(key, None)
        if not task.cancelled():
            task.exception()  # read, so that a fault whose callers are gone is not reported as never retrieved

    async def _ask(self, key: bytes, request: JudgeRequest) -> Verdict:
        messages = user_message(self._prompt_for(request).fill(request))
        try:
            verdict: Verdict = await self.client.complete(
                messages, self._sampling(request), read=lambda reply: self._read(reply, request)
            )
        except EndpointError as fault:
            if fault.is_of_the_sample:
                raise self.refusals.error(fault, self.requests) from fault
            raise
        self.cache.put(key, verdict)
        return verdict

    def _prompt_for(self, request: JudgeRequest) -> JudgePrompt:
        if request.template is not None:
            return own_prompt(request.template, self.options.max_field_chars)
        self.prompt.check(request.parse, self.options.prompt)
        return self.prompt

    def _read(self, reply: ChatReply, request: JudgeRequest) -> Verdict:
        """Return the verdict of a reply.

        Raises:
            EndpointError: the reply is no verdict.
        """
        self.calls += 1
        self.prompt_tokens += reply.usage.get("prompt_tokens", 0)
        self.completion_tokens += reply.usage.get("completion_tokens", 0)
        was_cut = reply.ran_out and request.parse == "strict"
        correct = None if was_cut else parse_verdict(reply.text, request.parse)
        if correct is not None:
            probability = yes_probability(reply.logprobs)
            return Verdict(correct, reply.text, probability, reply.latency_s, attempts=reply.attempts)
        self.unparsed += 1
        said = f"{reply.text[:120]!r}" + (f", after the reasoning {reply.reasoning[-80:]!r}" if reply.reasoning else "")
        if was_cut:
            problem = f"The judge's reply was cut at its limit of tokens: it answered {said}."
            fix = "Raise medix.scorer.judge.max_tokens or .free_tokens, or switch the model's thinking off in .extra."
        else:
            problem = f"The judge answers, but not with YES or NO: it answered {said}."
            fix = "Use a model that follows the prompt, or one whose server can be held to a choice (.constrain)."
        raise EndpointError(problem, fix, "unusable", found=f"{said} from {reply.url}")

    def _sampling(self, request: JudgeRequest) -> Sampling:
        o = self.options
        if request.parse == "substring":
            return Sampling(RELEASED_TOKENS, o.temperature, seed=request.seed, top_logprobs=o.top_logprobs)
        return Sampling(
            max_tokens=o.max_tokens,
            temperature=o.temperature,
            seed=request.seed,
            top_logprobs=o.top_logprobs,
            choice=CHOICES if o.constrain in ("auto", "choice") else (),
            json_schema=VERDICT_SCHEMA if o.constrain in ("auto", "json") else None,
            # A form that was asked for by hand is kept, whatever the replies look like.
            free_tokens=0 if o.constrain in ("choice", "json") else o.free_tokens,
        )

    async def aclose(self) -> None:
        """Cancel the calls in flight and close the session."""
        for task in list(self._in_flight.values()):
            task.cancel()
        await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        await self.client.aclose()
