"""One function hides secrets, whatever form they come in; what is no secret stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from medix.secrets import is_secret_name, mask_secrets, mask_settings


@pytest.mark.parametrize(
    "text",
    [
        "http://user:SECRET1@host:80/v1", "http://SECRET1@host", "https://h/v1?key=SECRET1&alt=json",
        "?api-version=3&api-key=SECRET1",
        "Authorization: Bearer SECRET1", '{"authorization": "Bearer SECRET1"}', "Basic SECRET1==", "X-Api-Key: SECRET1",
        "x-goog-api-key: SECRET1", "'api-key': 'SECRET1'", '"key": "SECRET1"', "WANDB_API_KEY=SECRET1",
        "password=SECRET1",
        "client_secret: SECRET1", "Cookie: SECRET1", "Incorrect API key provided: sk-SECRET1SECRET1SECRET1",
        "hf_SECRET1SECRET1", "the server echoed value-of-SECRET1",
    ],
)  # fmt: skip
def test_a_secret_in_any_form_is_hidden(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "value-of-SECRET1")
    assert "SECRET1" not in mask_secrets(text)


def test_a_folder_that_a_variable_names_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`PWD` looks like a password's name: every path below the working directory was shown as ***."""
    (tmp_path / "key.json").touch()
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("OLDPWD", "/home/somebody/elsewhere")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    text = f"no files at {tmp_path}/data, /home/somebody/elsewhere or {tmp_path}/key.json"
    assert mask_secrets(text) == text
    # A file of that name in the working directory does not show a key.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hunter2").touch()
    monkeypatch.setenv("MY_JUDGE_KEY", "hunter2")
    assert mask_secrets("the server echoed hunter2") == "the server echoed ***"


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 8", "medix.scorer.judge.api_key_env=OPENAI_API_KEY", "KeyError: 'choices'",
        "http://host:8000/v1/models",
        "image_key: images", "HTTP 404 on POST http://h/v1/chat/completions",
        "mail me@example.org", "the key: value form",
        "token: 5", "monkey=banana", "eos_token: </s>",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_secrets(text) == text


def test_settings_are_masked_by_name_and_by_look() -> None:
    raw = {"judge": {"urls": ["http://u:p@h"], "headers": {"X-Api-Key": "k"}, "api_key_env": "KEY", "max_tokens": 8}}
    masked = {"urls": ["http://***@h"], "headers": {"X-Api-Key": "***"}, "api_key_env": "KEY", "max_tokens": 8}
    assert mask_settings(raw) == {"judge": masked}


@pytest.mark.parametrize(("name", "secret"), [("X-Api-Key", True), ("api_key_env", False), ("tokenizer", False)])
def test_a_name_says_whether_it_is_a_secret(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret
