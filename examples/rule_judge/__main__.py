"""`python -m examples.rule_judge`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated, Optional

import typer


def rule_judge(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    synonyms: Annotated[Optional[Path], typer.Option(help="JSON file of further synonym groups.")] = None,  # noqa: UP045
    latency_ms: Annotated[float, typer.Option(help="Delay of every reply, to stand for a slower judge.")] = 0.0,
    parent_pid: Annotated[Optional[int], typer.Option(help="Exit when this process is gone.")] = None,  # noqa: UP045
) -> None:
    """A small judge made of rules (OpenAI protocol, model `rule-judge`): for demos, tests and drills.

    The first line on stdout is its base URL.
    """
    from examples.rule_judge.server import RuleJudgeApp, serve
    from medix.errors import ConfigError
    from reward_fns.clinical_rules.rule_judge import load_synonyms

    app = RuleJudgeApp(load_synonyms(synonyms) if synonyms else (), latency_ms / 1000)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(app, host, port, parent_pid, lambda url: print(url, flush=True)))
    except OSError as error:
        raise ConfigError(
            f"The port {port} on {host} can not be used: {error}.", "Choose another --port, or 0."
        ) from error


typer.run(rule_judge)
