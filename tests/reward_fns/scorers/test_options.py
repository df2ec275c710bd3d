"""Bad configuration fails at the start, and says what is right."""

from __future__ import annotations

import math
from typing import Any

import pytest

from medix.errors import ConfigError
from reward_fns.scorers.endpoints import EndpointOptions, EndpointPool
from reward_fns.scorers.service import ScorerService


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"judge": {"urls": []}}, "medix.scorer.judge.urls"),
        ({"judge": {"urls": ["localhost:1"]}}, "http"),
        ({"judge": {"urls": ["http://h"], "api_key_env": "NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE"),
        ({"judge": {"urls": ["http://h"], "promt": "x"}}, "[Dd]id you mean 'prompt'"),
        ({"judge": {"urls": ["http://h"], "timeout_s": "soon"}}, "timeout_s"),
        ({"judge": {"urls": ["http://h"], "timeout_s": math.inf}}, "timeout_s"),
        ({"judge": {"urls": ["http://h"], "prompt": "/none.txt"}}, "/none.txt"),
        ({"judge": {"urls": ["http://h"]}, "cahce": {}}, "[Dd]id you mean 'cache'"),
    ],
)
def test_a_wrong_setting_fails_at_the_start(config: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ScorerService(config).open(("judge",))


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("judge", {"timeout_s": -1}), ("judge", {"retries": -1}), ("judge", {"backoff_s": -0.5}),
        ("judge", {"max_in_flight": 0}), ("judge", {"max_reply_bytes": 0}), ("judge", {"max_field_chars": 0}),
        ("judge", {"max_tokens": 0}), ("judge", {"temperature": -5}), ("judge", {"top_logprobs": -1}),
        ("judge", {"server": "claude"}), ("embedder", {"batch_size": 0}), ("embedder", {"threads": -1}),
        ("cache", {"max_entries": -5}),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_fails_at_the_start(part: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"medix\.scorer\.{part}\.{next(iter(wrong))}"):
        ScorerService({part: wrong})


def test_options_that_were_not_read_from_a_mapping_are_held_to_the_ranges_too() -> None:
    with pytest.raises(ConfigError, match=r"--model-url\.retries"):
        EndpointPool(EndpointOptions(urls=("http://h",), retries=-1), "--model-url")


@pytest.mark.parametrize("key", ["two\nlines", "a\x00b", "schlüssel"])
def test_a_key_that_would_break_the_request_is_refused_without_being_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"JUDGE_KEY": key})  # the real environment takes no NUL
    with pytest.raises(ConfigError, match="JUDGE_KEY") as refused:
        EndpointPool(EndpointOptions(urls=("http://h",), api_key_env="JUDGE_KEY"))
    assert key not in str(refused.value)
