"""The options of `medix eval`, each declared once, and what is built from them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medix.errors import ConfigError

if TYPE_CHECKING:
    from evaluation.backends import Backend, Decoding
    from evaluation.generate import GenerateOptions
    from evaluation.judging.judge import JudgeOptions


class BackendName(StrEnum):
    """What serves the model."""

    auto = "auto"
    endpoint = "endpoint"
    vllm = "vllm"
    transformers = "transformers"


class PromptName(StrEnum):
    """How questions are put."""

    bare = "bare"
    training = "training"


class RubricChoice(StrEnum):
    """How judges are asked."""

    verdict = "verdict"
    rubric = "rubric"
    report = "report"


Out = Annotated[Path, typer.Option("--out", help="run folder; run again to resume")]
Model = Annotated[str, typer.Option("--model", help="folder, hub name, or the endpoint's name for it")]
Tasks = Annotated[
    list[str], typer.Option("--tasks", help="all, llm, vlm, or names; may be repeated or comma-separated")
]
BackendOption = Annotated[BackendName, typer.Option("--backend", help="auto: endpoint with --model-url, else vllm")]
ModelUrl = Annotated[list[str] | None, typer.Option("--model-url", help="OpenAI-compatible endpoint; may be repeated")]
ModelKey = Annotated[str, typer.Option("--model-key-env", help="environment variable that holds its key")]
Prompt = Annotated[PromptName, typer.Option("--prompt", help="bare question (the paper's), or the training template")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="of a response; default: the tasks' own")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy")]
Seed = Annotated[int | None, typer.Option("--seed", help="for sampling above temperature 0")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="items of each task")]
Data = Annotated[list[str] | None, typer.Option("--data", help="TASK=FOLDER with the task's files; may be repeated")]
InFlight = Annotated[int, typer.Option("--in-flight", min=1, help="requests at once, to model and judge each")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="seconds for one request")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="further tries on 429, 5xx and failed connections")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="transformers only")]
JudgeUrl = Annotated[list[str] | None, typer.Option("--judge-url", help="one for each --judge-model, or one for all")]
JudgeModel = Annotated[
    list[str] | None, typer.Option("--judge-model", help="the first one scores, others for agreement")
]
JudgeKey = Annotated[str, typer.Option("--judge-key-env", help="environment variable that holds the judges' key")]
Votes = Annotated[int, typer.Option("--votes", min=1, help="independent votes of each judge; odd")]
JudgeTemperature = Annotated[
    float | None, typer.Option("--judge-temperature", help="default 0, with several votes 0.7")
]
JudgeImages = Annotated[bool, typer.Option("--judge-sees-images", help="show the images to the judge")]
RubricOption = Annotated[RubricChoice | None, typer.Option("--rubric", help="instead of the tasks' own")]
FailedOnly = Annotated[bool, typer.Option("--judge-failed-only", help="only judgements that failed before")]
MaxUnscored = Annotated[float, typer.Option("--max-unscored", min=0.0, max=1.0, help="share of items; above it exit 2")]
Calibration = Annotated[Path | None, typer.Option("--calibration", help="calibration.json, for corrected scores")]
PriceOption = Annotated[
    str, typer.Option("--prices", help="per million tokens: MODEL_IN,MODEL_OUT[,JUDGE_IN,JUDGE_OUT]")
]


def generate_options(
    tasks: Sequence[str],
    prompt: Literal["bare", "training"],
    max_tokens: int | None,
    temperature: float,
    seed: int | None,
    limit: int | None,
    data: Sequence[str],
    width: int,
) -> GenerateOptions:
    """Read the tasks and where their files are.

    Raises:
        ConfigError: unknown task, or a malformed `--data`.
    """
    from evaluation.backends import Decoding
    from evaluation.generate import GenerateOptions
    from evaluation.task import select_tasks

    names = [name.strip() for part in tasks for name in part.split(",") if name.strip()]
    selected = tuple(select_tasks(names))
    decoding = Decoding(max_tokens or max(task.max_tokens for task in selected), temperature, seed=seed)
    return GenerateOptions(selected, prompt, decoding, limit, local_folders(data), width)


def local_folders(data: Sequence[str]) -> dict[str, Path]:
    """`TASK=FOLDER` pairs."""
    found: dict[str, Path] = {}
    for pair in data:
        name, equals, folder = pair.partition("=")
        if not equals or not Path(folder).expanduser().is_dir():
            raise ConfigError(
                "--data TASK=FOLDER with a folder that exists", repr(pair), "e.g. --data slake=/data/slake"
            )
        found[name] = Path(folder).expanduser()
    return found


def open_backend(
    name: BackendName,
    model: str,
    urls: Sequence[str],
    key_env: str,
    decoding: Decoding,
    in_flight: int,
    timeout_s: float,
    retries: int,
    batch_size: int,
    out: Path,
) -> Backend:
    """The backend asked for; nothing is loaded or started before the first question.

    Raises:
        ConfigError: the options do not fit together.
    """
    from reward_fns.scorers.endpoints import EndpointOptions

    if name is BackendName.auto:
        name = BackendName.endpoint if urls else BackendName.vllm
    if (name is BackendName.endpoint) != bool(urls):
        raise ConfigError("--model-url with the endpoint backend and with no other", name.value, "drop one of the two")
    if name is BackendName.transformers:
        from evaluation.backends.local import LocalBackend

        return LocalBackend(Path(model), decoding, batch_size)
    options = EndpointOptions(
        urls=tuple(urls), api_key_env=key_env, max_in_flight=in_flight, timeout_s=timeout_s, retries=retries
    )
    if name is BackendName.endpoint:
        from evaluation.backends.endpoint import EndpointBackend

        return EndpointBackend(options, model, decoding, deadline_s=3 * timeout_s)
    from evaluation.backends.vllm_server import VllmBackend

    return VllmBackend(options, model, decoding, deadline_s=3 * timeout_s, log=out / "vllm.log")


def judge_options(
    models: Sequence[str],
    urls: Sequence[str],
    key_env: str,
    votes: int,
    temperature: float | None,
    sees_images: bool,
    in_flight: int,
    timeout_s: float,
    retries: int,
) -> list[JudgeOptions]:
    """One judge a model.

    Raises:
        ConfigError: no judge, or neither one URL nor one for each.
    """
    from evaluation.judging.judge import JudgeOptions
    from reward_fns.scorers.endpoints import EndpointOptions

    if not models or len(urls) not in (1, len(models)):
        raise ConfigError(
            "--judge-model with one --judge-url, or with as many",
            f"{len(models)} models and {len(urls)} addresses",
            "e.g. --judge-url http://127.0.0.1:8000 --judge-model NAME; `python -m examples.rule_judge` is one",
        )
    addresses = list(urls) * len(models) if len(urls) == 1 else list(urls)
    return [
        JudgeOptions(
            model,
            EndpointOptions((url,), key_env, max_in_flight=in_flight, timeout_s=timeout_s, retries=retries),
            votes,
            temperature,
            deadline_s=3 * timeout_s,
            sees_images=sees_images,
        )
        for model, url in zip(models, addresses, strict=True)
    ]
