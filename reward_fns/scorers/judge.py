"""The judge: one verdict a request, found in the cache, shared with a call in flight, or asked of an endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medix.errors import ScorerError
from medix.options import Count, CountOrZero, NotNegative, Positive
from reward_fns.scorers.breaker import BreakerOptions, CircuitBreaker
from reward_fns.scorers.cache import VerdictCache
from reward_fns.scorers.chat import ChatClient, Sampling, user_message
from reward_fns.scorers.endpoints import CONTENT_STATUSES, Deadline, EndpointError, EndpointOptions
from reward_fns.scorers.judge_prompt import JUDGE_PROMPT, load_judge_prompt, own_prompt
from reward_fns.scorers.patience import Patience
from reward_fns.scorers.types import JudgeRequest, Verdict
from reward_fns.scorers.verdict import CHOICES, VERDICT_SCHEMA, Constraint, parse_verdict, yes_probability

LATENCIES_KEPT = 4096
_encode = json.JSONEncoder(sort_keys=True).encode  # json.dumps would make an encoder for each of thousands of calls


@dataclass(frozen=True)
class JudgeOptions(EndpointOptions):
    """`medix.scorer.judge`. Times are seconds."""

    model: str = "rule-judge"
    prompt: str = str(JUDGE_PROMPT)
    max_field_chars: Count = 2000
    max_tokens: Count = 8
    temperature: NotNegative = 0.0
    top_logprobs: CountOrZero = 5
    """Alternatives asked for, to record P(YES); 0 where the server refuses log-probabilities."""
    constrain: Constraint = "auto"
    """How the reply is held to YES or NO; `auto` starts with `choice` and steps down where the server refuses it."""
    tries: Count = 3
    """Calls for one sample, each with the endpoint's own retries, before its failure is final."""
    deadline_s: Positive = 180.0
    """For one sample; time that the breaker holds does not count."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the request body, e.g. {chat_template_kwargs: {enable_thinking: false}}."""


class Judge:
    """Use from one event loop.

    Raises:
        ConfigError: at construction, for a missing URL, key or prompt file.
    """

    def __init__(self, options: JudgeOptions, cache: VerdictCache, breaker: BreakerOptions) -> None:
        self.options, self.cache = options, cache
        self.client = ChatClient(options, options.model)
        self.prompt = load_judge_prompt(Path(options.prompt), options.max_field_chars)
        sampling = [options.temperature, options.max_tokens, options.extra]
        self._settings_key = _encode([self.prompt.version, options.model, *sampling]).encode()
        self.breaker = CircuitBreaker(breaker, "judge", ", ".join(options.urls))
        self.patience = Patience(self.breaker, options.tries, options.deadline_s)
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.requests = self.calls = self.cache_hits = self.coalesced = self.unparsed = 0
        self.prompt_tokens = self.completion_tokens = 0
        self._in_flight: dict[bytes, asyncio.Task[Verdict]] = {}
        self._constraints = ["choice", "json", "none"] if options.constrain == "auto" else [str(options.constrain)]
        self._stepping = asyncio.Lock()

    def key(self, request: JudgeRequest) -> bytes:
        """Content address: prompt version, model, sampling, and all of the request."""
        asked = [request.question, request.reference, list(request.aliases), request.candidate, request.parse]
        if request.template is not None:
            asked.append(request.template)
        return hashlib.sha256(self._settings_key + _encode(asked).encode()).digest()

    async def judge(self, request: JudgeRequest) -> Verdict:
        """A verdict for the request.

        Raises:
            ScorerError: no verdict could be had (see `medix.scorer.patience`).
        """
        self.requests += 1
        key = self.key(request)
        cached = self.cache.get(key)
        if cached is not None:
            self.cache_hits += 1
            return cached
        task = self._in_flight.get(key)
        shared = task is not None
        if task is None:
            task = asyncio.create_task(self._ask(key, request))
            self._in_flight[key] = task
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
        prompt = self.prompt if request.template is None else own_prompt(request.template, self.prompt.max_field_chars)
        text = prompt.fill(request)
        verdict = await self.patience.get(lambda deadline: self._call(text, request, deadline))
        self.cache.put(key, verdict)
        return verdict

    async def _call(self, text: str, request: JudgeRequest, deadline: Deadline) -> Verdict:
        start = time.monotonic()
        constraint = self._constraints[0]
        try:
            reply = await self.client.complete(user_message(text), self._sampling(constraint), deadline)
        except EndpointError as error:
            if error.status in CONTENT_STATUSES and await self._stepped_down(constraint, deadline):
                return await self._call(text, request, deadline)
            raise
        self.calls += 1
        self.prompt_tokens += reply.usage.get("prompt_tokens", 0)
        self.completion_tokens += reply.usage.get("completion_tokens", 0)
        correct = parse_verdict(reply.text, request.parse)
        if correct is None:
            self.unparsed += 1
            raise ScorerError(
                "a judge's reply that is YES or NO",
                f"{reply.text[:120]!r} from {reply.url}",
                "use a model that follows the prompt, or constrained decoding (medix.scorer.judge.constrain)",
            )
        latency_s = time.monotonic() - start
        self.latencies_s.append(latency_s)
        return Verdict(correct, reply.text, yes_probability(reply.logprobs), latency_s, attempts=reply.attempts)

    async def _stepped_down(self, constraint: str, deadline: Deadline) -> bool:
        """After a refusal: whether it was the constraint, seen on a tiny question, and not one long prompt."""
        async with self._stepping:  # of all the calls refused at the start, one finds out
            if self._constraints[0] != constraint:
                return True
            if len(self._constraints) == 1 or self.breaker.successes:
                return False
            tiny = user_message(self.prompt.fill(JudgeRequest("yes", "yes")))
            try:
                await self.client.complete(tiny, self._sampling(constraint), deadline)
            except EndpointError as error:
                if error.status not in CONTENT_STATUSES:
                    raise
                self._constraints.pop(0)
                return True
            self._constraints = [constraint]
            return False

    def _sampling(self, constraint: str) -> Sampling:
        o = self.options
        return Sampling(
            max_tokens=o.max_tokens if constraint != "json" else max(o.max_tokens, 24),
            temperature=o.temperature,
            top_logprobs=o.top_logprobs,
            choice=CHOICES if constraint == "choice" else (),
            json_schema=VERDICT_SCHEMA if constraint == "json" else None,
            extra=o.extra,
        )

    async def aclose(self) -> None:
        for task in list(self._in_flight.values()):
            task.cancel()
        await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        await self.client.aclose()
