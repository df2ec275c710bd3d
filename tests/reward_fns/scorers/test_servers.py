"""What labs serve judges with: each kind by its documents, and every form of a reply. Makes docs/judges.md's tables.

The stand-ins are ours and refuse or ignore what the documents of their server say it does; no real one was asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from medix.errors import ConfigError, ScorerError
from reward_fns.scorers.chat import PRESETS
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import RefusedSample
from tests.reward_fns.scorers.conftest import FakeJudge, ask, completion

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[3] / "docs" / "judges.md"


@dataclass
class Kind:
    """A server: where it is asked, which of our fields it refuses and in which words, and how its replies look."""

    path: str = "/v1"
    refuses: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Field of the body -> status and body of the refusal."""
    holds_to: str = "response_format"
    """The field by which it holds a reply to a form; others are ignored in silence."""
    thinks: str = ""
    """Where its reasoning goes: a key of the message, `parts`, `inline`, or nowhere."""
    key_header: str = "Authorization"
    limit: dict[str, str] = field(default_factory=lambda: {"Retry-After": "0.2"})


def said(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


UNKNOWN = {"structured_outputs": (400, said("Unrecognized request argument supplied: structured_outputs"))}
REASONING_MODEL = UNKNOWN | {
    "max_tokens": (400, said("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")),
    "temperature": (400, said("Unsupported value: 'temperature' does not support 0 with this model.")),
    "logprobs": (403, said("You are not allowed to request logprobs from this model")),
}
KINDS = {
    "vllm": Kind(holds_to="structured_outputs"),
    "sglang": Kind(thinks="reasoning_content"),
    "ollama": Kind(thinks="reasoning", key_header=""),
    "llama.cpp": Kind(thinks="inline", key_header=""),
    "openai": Kind(refuses=REASONING_MODEL),
    "azure": Kind("/openai/v1?api-version=preview", REASONING_MODEL, key_header="api-key"),
    "gemini": Kind("/v1beta/openai/", {
        name: (400, [said(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')])
        for name in ("structured_outputs", "logprobs", "seed")
    }, limit={}),
    "mistral": Kind(thinks="parts", refuses={
        name: (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", name]}]})
        for name in ("structured_outputs", "logprobs", "seed")
    }),
}  # fmt: skip


class Stand(FakeJudge):
    """A stand-in for one kind of server. `limited` is how many requests it still answers with 429."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind, self.limited, self.refused = kind, 0, 0
        self.path = kind.path.partition("?")[0].rstrip("/") + "/chat/completions"
        self.behaviour = Stand.reply

    async def reply(self, request: web.Request) -> web.Response:
        kind, body = self.kind, self.bodies[-1]
        if kind.key_header and "key-of-ours" not in request.headers.get(kind.key_header, ""):
            return web.json_response(said("no key"), status=401)
        if "?" in kind.path and "api-version" not in request.query:
            return web.json_response(said("Resource not found"), status=404)
        for name, (status, answer) in kind.refuses.items():
            if name in body:
                self.refused += 1
                return web.json_response(answer, status=status)
        if self.limited > 0:
            self.limited -= 1
            return web.json_response(said("Rate limit reached"), status=429, headers=kind.limit)
        prompt = body["messages"][0]["content"]
        if "FILTERED" in prompt:
            answer = {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}
            return web.json_response(answer, status=400)
        tokens = body.get("max_tokens", body.get("max_completion_tokens", 16))
        verdict = "YES" if "good" in prompt else "NO"
        if kind.thinks and tokens < 200:  # the reasoning takes them all
            return completion(None, finish_reason="length", **{"message": self.message(None, "The candidate says")})
        form = {"structured_outputs": verdict, "response_format": f'{{"verdict": "{verdict}"}}'}
        text = form[kind.holds_to] if kind.holds_to in body else f"**{verdict.capitalize()}**."
        return completion(text, message=self.message(text, "It fits, so YES or NO?"))

    def message(self, text: str | None, thought: str) -> dict[str, Any]:
        if self.kind.thinks == "parts":
            parts = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
            return {"content": [*parts, {"type": "text", "text": text}] if text else parts}
        if self.kind.thinks == "inline":
            return {"content": f"{thought}</think>\n\n{text}" if text else f"<think>{thought}"}
        return {"content": text, **({self.kind.thinks: thought} if self.kind.thinks else {})}


async def row(name: str, server: str, caplog: pytest.LogCaptureFixture) -> tuple[list[str], int]:
    """Cells of the table for one kind, asked as `server`, and how many of its refusals it took to find out."""
    stand = Stand(KINDS[name])
    await stand.start()
    url = stand.url + KINDS[name].path
    judge = {"urls": [url], "server": server, "backoff_s": 0.01, "retries": 1}
    if KINDS[name].key_header:
        judge |= {"api_key_env": "JUDGE_KEY", "api_key_header": KINDS[name].key_header}
    service = ScorerService({"judge": judge, "hold_limit_s": 5})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        right, wrong = await service.judge(ask(0)), await service.judge(ask(1, candidate="bad 1", seed=7))
    assert (right.correct, wrong.correct) == (True, False)
    adapted = "; ".join(line.split("from now on: ")[1].rstrip(".") for line in caplog.messages if "from now on" in line)
    refused = stand.refused
    stand.limited = 3
    assert (await service.judge(ask(2))).correct
    with pytest.raises(RefusedSample) as fault:
        await service.judge(ask(3, question="FILTERED"))
    assert "content_filter" in str(fault.value)
    await service.aclose()
    full = ScorerService({"judge": {**judge, "urls": [url.replace("?", "/chat/completions?")]}, "hold_limit_s": 0})
    assert (await full.judge(ask(4))).correct
    await full.aclose()
    await stand.stop()
    reply = {"": "read", "parts": "read: text beside parts of thinking", "inline": "read: what follows `</think>`"}
    thought = reply.get(KINDS[name].thinks, f"read: `{KINDS[name].thinks}` left aside")
    header = ", ".join(f"{key}: {value}" for key, value in KINDS[name].limit.items())
    return [
        name,
        f"read: `{KINDS[name].path}`",
        f"adapted: {adapted}" if adapted else "read",
        thought,
        f"waits: `{header}`" if header else "waits, longer and longer",
    ], refused


HEAD = "| server | address | parameters, found out with `server: auto` | reply | limit |\n|---|---|---|---|---|\n"


async def test_every_kind_of_server_is_found_out_and_a_preset_spares_its_refusals(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "key-of-ours")
    assert {*KINDS, "auto"} == set(PRESETS)
    lines = []
    for name in KINDS:
        cells, found_out = await row(name, "auto", caplog)
        _, preset = await row(name, name, caplog)
        assert preset < found_out or found_out == 0, name
        lines.append("| " + " | ".join(cells) + " |")
    held_against_the_page("servers", HEAD + "\n".join(lines))


def held_against_the_page(name: str, table: str) -> None:
    found = re.search(rf"<!-- table {name} -->\n(.*?)\n<!-- end -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"docs/judges.md has no table {name!r}"
    assert found[1] == table, f"docs/judges.md is to have this table:\n{table}"


def reply(content: Any, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"content": content, **message}, "finish_reason": finish}]}


READ, CUT = {True: "YES", False: "NO"}, "cut at its limit of tokens"
REPLIES: dict[str, tuple[dict[str, Any], bool | str]] = {
    "`YES`": (reply("YES"), True),
    "`no.`": (reply("no."), False),
    "`**Yes**`": (reply("**Yes**"), True),
    '`{"verdict": "NO"}`, fenced': (reply('```json\n{"verdict": "NO"}\n```'), False),
    "`Answer: NO`": (reply("**Answer:** NO"), False),
    "reasoning, a lone `</think>`, `NO`": (reply("YES? It is not.</think>\n\nNO"), False),
    "`NO` beside `reasoning_content`": (reply("NO", reasoning_content="YES or NO?"), False),
    "a list of parts": (reply([{"type": "text", "text": "N"}, {"type": "text", "text": "O"}]), False),
    "two choices, the second first": (
        {"choices": [reply("YES")["choices"][0] | {"index": 1}, reply("NO")["choices"][0]]},
        False,
    ),
    "null, `finish_reason: length`, reasoning": (reply(None, "length", reasoning="The candidate"), CUT),
    "`NO`, `finish_reason: length`": (reply("NO", "length"), CUT),
    "`NO`, `finish_reason: content_filter`": (reply("NO", "content_filter"), "refuses the content"),
    "`NO`, `finish_reason: error`": (reply("NO", "error"), "ended with an error"),
    "`message.refusal`": (reply(None, refusal="I can not help"), "refuses the content"),
    "HTTP 200 with an error": ({"error": {"message": "overloaded", "code": 502}}, "HTTP 502"),
    "both words, a sentence, nothing": (reply("NO, but YES"), "not with YES or NO"),
    "`<think>` without an end": (reply("<think>YES"), "not with YES or NO"),
}


async def test_every_form_of_a_reply_is_read_or_told_in_its_own_words(fake_judge: Any, fast: Any) -> None:
    lines = []
    for form, (data, expected) in REPLIES.items():

        async def say(judge: Any, request: web.Request, data: Any = data) -> web.Response:
            return web.json_response(data)

        fake_judge.behaviour = say
        service = ScorerService(fast(fake_judge.url))
        try:
            found: bool | str = (await service.judge(ask(0))).correct
        except ScorerError as error:
            found = str(error)
            assert "bring the judge up" not in found or isinstance(expected, str)
        await service.aclose()
        assert found == expected if isinstance(expected, bool) else expected in str(found), form
        told = f"read as {READ[expected]}" if isinstance(expected, bool) else f'refused: "{expected}"'
        lines.append(f"| {form} | {told} |")
    held_against_the_page("replies", "| reply | outcome |\n|---|---|\n" + "\n".join(lines))


async def test_a_server_that_ignores_every_constraint_and_thinks_gets_room_and_is_asked_once_to_find_out(
    fake_judge: Any, fast: Any
) -> None:
    async def think(judge: Any, request: web.Request) -> web.Response:
        if judge.bodies[-1]["max_tokens"] < 200:
            return completion("<think>The candidate", finish_reason="length")
        return completion("<think>The candidate is right.</think> YES")

    fake_judge.behaviour = think
    service = ScorerService(fast(fake_judge.url, free_tokens=2048))
    verdicts = await asyncio.gather(*(service.judge(ask(n)) for n in range(20)))
    calls_at_the_start = len(fake_judge.bodies)
    await asyncio.gather(*(service.judge(ask(n)) for n in range(20, 40)))
    assert all(verdict.correct for verdict in verdicts)
    assert calls_at_the_start == 40  # each of the first twenty once in vain
    assert len(fake_judge.bodies) == 60


async def test_a_form_that_was_asked_for_by_hand_is_kept(fake_judge: Any, fast: Any) -> None:
    async def ignore(judge: Any, request: web.Request) -> web.Response:
        return completion("I think so")

    fake_judge.behaviour = ignore
    service = ScorerService(fast(fake_judge.url, constrain="choice", free_tokens=2048))
    with pytest.raises(ScorerError, match="not with YES or NO"):
        await service.judge(ask(0))
    assert [("structured_outputs" in body, body["max_tokens"]) for body in fake_judge.bodies] == [(True, 8)] * 2


async def test_a_refusal_that_names_nothing_is_found_out_by_leaving_fields_out(fake_judge: Any, fast: Any) -> None:
    async def picky(judge: Any, request: web.Request) -> web.Response | None:
        return web.Response(status=400, text="Bad Request") if "logprobs" in judge.bodies[-1] else None

    fake_judge.behaviour = picky
    service = ScorerService(fast(fake_judge.url))
    assert (await service.judge(ask(0))).correct
    assert (await service.judge(ask(1))).correct
    assert len(fake_judge.bodies) == 1 + 3 + 1  # as it is, without 1, 2, 3 of the optional fields, then at once


async def test_what_is_set_by_hand_is_sent_as_it_is(fake_judge: Any, fast: Any) -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 64, "chat_template_kwargs": {"enable_thinking": False}}
    service = ScorerService(fast(fake_judge.url, extra=extra, temperature=None))
    await service.judge(ask(0))
    body = fake_judge.bodies[0]
    assert (body["max_completion_tokens"], body["chat_template_kwargs"]) == (64, {"enable_thinking": False})
    assert not {"max_tokens", "temperature"} & body.keys()


@pytest.mark.parametrize(
    ("on_refusal", "refused", "ends_as"),
    [("drop_group", 1, RefusedSample), ("drop_group", 3, ScorerError), ("stop", 1, ScorerError)],
)
@pytest.mark.parametrize("how", ["a 400 of its filter", "a 400 that says nothing", "finish_reason"])
async def test_a_refused_sample_is_set_aside_up_to_a_share_and_is_no_failure_of_the_judge(
    how: str, on_refusal: str, refused: int, ends_as: type, fake_judge: Any, fast: Any
) -> None:
    """0.02 of the first 100 calls are 2: the third refusal stops the run."""

    async def filter_some(judge: Any, request: web.Request) -> web.Response | None:
        if "violence" not in judge.bodies[-1]["messages"][0]["content"]:
            return None
        if how == "finish_reason":
            return completion("NO", finish_reason="content_filter")
        return web.Response(status=400, text="content_filter" if "filter" in how else "Bad Request")

    fake_judge.behaviour = filter_some
    service = ScorerService({**fast(fake_judge.url), "on_refusal": on_refusal, "hold_limit_s": 3600})
    await service.judge(ask(99))
    requests = [ask(n, question="violence" if n < refused else "q?") for n in range(48)]
    found = await asyncio.gather(*(service.judge(request) for request in requests), return_exceptions=True)
    stats = service.stats()
    faults = [error for error in found if isinstance(error, ScorerError)]
    assert (len(faults), stats["judge_refused"], stats["judge_outages"]) == (refused, refused, 0)
    assert (stats["judge_failures"], service.judge_faults) == (0, 0)  # they would count in `judge_failure_rate`
    assert type(faults[-1]) is ends_as
    assert [type(error) for error in faults[:-1]] == [RefusedSample] * (refused - 1)


@pytest.mark.parametrize("candidate", ["", ".", "???", "—", "  "])
async def test_a_candidate_without_a_letter_or_digit_is_not_asked_about(
    candidate: str, fake_judge: Any, fast: Any
) -> None:
    service = ScorerService(fast(fake_judge.url))
    verdict = await service.judge(ask(0, candidate=candidate))
    assert (verdict.correct, fake_judge.bodies) == (False, [])


async def test_the_released_reward_asks_for_a_free_reply_of_four_tokens(
    fake_judge: Any, fast: Any, tmp_path: Path
) -> None:
    async def released(judge: Any, request: web.Request) -> web.Response:
        return completion("YES, the", finish_reason="length")

    (tmp_path / "plain.txt").write_text("Predicted: {candidate} Truth: {reference}. YES or NO?")
    fake_judge.behaviour = released
    service = ScorerService(fast(fake_judge.url, prompt=str(tmp_path / "plain.txt")))
    assert (await service.judge(ask(0, parse="substring", seed=1))).correct
    with pytest.raises(ConfigError, match="has no delimited fields"):
        await service.judge(ask(0))
    body = fake_judge.bodies[0]
    assert (body["max_tokens"], body["seed"], "structured_outputs" in body) == (4, 1, False)
