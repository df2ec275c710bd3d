"""What ran, what differs, and what must not be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medix.secrets import MASK
from medix_verl.report.run_folder import Metrics, RunFolder
from medix_verl.report.settings import difference, flatten, shown, what_ran


def run_of(config: dict[str, Any], path: str = "outputs/a", versions: dict[str, Any] | None = None) -> RunFolder:
    return RunFolder(Path(path), Metrics([]), [], config=config, versions=versions or {})


def test_secrets_are_hidden_and_lookalikes_are_not() -> None:
    names = ("api_key", "X-Api-Key", "key", "hf_token", "password", "max_tokens", "api_key_env")
    flat = flatten({"judge": dict.fromkeys(names, "abc")} | {"empty": {"password": ""}})
    hidden = {path.removeprefix("judge.") for path, value in flat.items() if value == MASK}
    assert hidden == {"api_key", "X-Api-Key", "key", "hf_token", "password"}
    assert "user:pass" not in shown(["http://user:pass@judge:80/v1"])


def test_a_yaml_bomb_stays_small() -> None:
    # Nine levels of nine references each: 9^9 = 387 million values from 500 bytes.
    levels = ["a0: &a0 [x,x,x,x,x,x,x,x,x]", "b0: &b0 {" + ", ".join(f"k{k}: x" for k in range(9)) + "}"]
    for level in range(8):
        levels.append(f"a{level + 1}: &a{level + 1} [{', '.join([f'*a{level}'] * 9)}]")
        levels.append(f"b{level + 1}: &b{level + 1} {{{', '.join(f'k{k}: *b{level}' for k in range(9))}}}")
    flat = flatten(yaml.safe_load("\n".join(levels)))
    assert sum(map(len, flat.values())) < 3_000_000


def test_only_what_differs_is_listed_and_neither_the_runs_own_folder_nor_a_port_is_a_difference() -> None:
    a = run_of({"lr": 1, "n": 8, "dir": "outputs/a/data", "url": "http://127.0.0.1:81"}, "outputs/a", {"verl": "1"})
    b = run_of({"lr": 2, "n": 8, "dir": "outputs/b/data", "url": "http://127.0.0.1:82"}, "outputs/b", {"verl": "2"})
    assert difference([a, b]) == [("lr", ["1", "2"]), ("versions.verl", ["1", "2"])]
    assert difference([a, run_of({**a.config, "new": True}, "outputs/a", {"verl": "1"})]) == [
        ("new", ["(not set)", "True"])
    ]


def test_unknown_settings_leave_no_line() -> None:
    assert what_ran(run_of({})) == []
    config = {"data": {"train_batch_size": 16, "seed": 0}, "actor_rollout_ref": {"model": {"lora_rank": 0}}}
    assert what_ran(run_of(config)) == [("Batch", "16 prompts"), ("Seed", "0")]
