"""What ran, what differs, and what must not be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medix_verl.report.run_folder import RunFolder
from medix_verl.report.series import Metrics
from medix_verl.report.settings import MASK, difference, flatten, shown, what_ran


def run_of(config: dict[str, Any], path: str = "outputs/a", versions: dict[str, Any] | None = None) -> RunFolder:
    return RunFolder(Path(path), Metrics([]), [], [], config, versions or {}, [], {}, "")


def test_secrets_are_hidden_and_lookalikes_are_not() -> None:
    flat = flatten(
        {"judge": {"api_key": "abc", "max_tokens": 8, "password": "", "hf_token": "xyz", "api_key_env": "KEY"}}
    )
    hidden = {path for path, value in flat.items() if value == MASK}
    assert hidden == {"judge.api_key", "judge.hf_token"}
    assert flat["judge.max_tokens"] == "8"


def test_urls_lose_what_may_be_a_password() -> None:
    assert shown(["http://user:pass@judge:80/v1?key=abc"]) == "http://judge:80/v1"


def test_only_what_differs_is_listed_and_the_runs_own_folder_is_no_difference() -> None:
    a = run_of({"lr": 1, "n": 8, "dir": "outputs/a/data"}, "outputs/a", {"verl": "1"})
    b = run_of({"lr": 2, "n": 8, "dir": "outputs/b/data", "new": True}, "outputs/b", {"verl": "2"})
    assert difference([a, b]) == [("lr", ["1", "2"]), ("new", ["(not set)", "True"]), ("versions.verl", ["1", "2"])]


def test_unknown_settings_leave_no_line() -> None:
    assert what_ran(run_of({})) == []
    lines = what_ran(run_of({"data": {"train_batch_size": 16}}))
    assert [(line.label, line.text) for line in lines] == [("Batch", "16 prompts")]
