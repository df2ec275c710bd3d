"""Do the judge and the embedder answer, and do they make sense? A judge that veRL serves starts with the run only."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from medix.errors import ConfigError, ScorerError
from medix.files import read_mapping
from medix_verl.preflight.check import Check
from medix_verl.preflight.model import check_readable, hub_name, missing_files
from reward_fns.scorers.service import ScorerService
from reward_fns.scorers.types import JudgeRequest, Scorers, VerdictParse

FIXED_VERDICTS = (
    ("Which organ is shown?", "liver", "liver.", True),
    ("Which organ is shown?", "liver", "spleen", False),
    ("Which side is affected?", "left lung", "right lung", False),
    ("Is there a fracture?", "no fracture", "fracture", False),
    ("Which modality is this?", "magnetic resonance imaging", "MRI", True),
    ("What is the diagnosis?", "myocardial infarction", "heart attack", True),
)
"""(question, reference, answer, right?): a judge that misses one of these is not fit to pay a policy."""

JudgeCheck = Literal["stop", "warn"]


def check_scorers(
    scorer: dict[str, Any], needs: frozenset[str], verdicts: Sequence[VerdictParse] = ("strict",)
) -> list[Check]:
    """Probe what the composite needs (`judge`, `similarity`); a scorer of weight 0 is not asked.

    Args:
        verdicts: how the composite has the judge's replies read: `Composite.verdicts`.
    """
    # A probe must say "unreachable" within seconds: no cache that could answer for it, and no waiting.
    judge = {**scorer["judge"], "retries": 1, "timeout_s": 20.0}
    service = ScorerService({**scorer, "judge": judge, "cache": {}, "hold_limit_s": 0.0})
    asked = {"judge": partial(_judge_check, service, judge, verdicts)}
    asked["similarity"] = partial(_embedder_check, service, scorer["embedder"])

    async def ask() -> list[Check]:
        async with contextlib.aclosing(service):
            return [await check() for need, check in asked.items() if need in needs]

    return asyncio.run(ask())


async def wrong_verdicts(scorers: Scorers, verdicts: Sequence[VerdictParse]) -> list[str]:
    """Ask for the fixed verdicts, and return what came out wrong, in words.

    Args:
        verdicts: how replies are read; with two ways all are asked twice, as the run will ask.

    Raises:
        ScorerError: there was no verdict to be had.
        ConfigError: the judge's prompt does not fit one of the ways.
    """
    wrong = []
    for parse, (question, reference, answer, right) in itertools.product(verdicts, FIXED_VERDICTS):
        verdict = await scorers.judge(JudgeRequest(reference, answer, question, parse=parse))
        if verdict.correct != right:
            wrong.append(f"{answer!r} for {reference!r}")
    return list(dict.fromkeys(wrong))


async def _judge_check(service: ScorerService, judge: dict[str, Any], verdicts: Sequence[VerdictParse]) -> Check:
    name, urls = f"judge {judge['model']}", ", ".join(judge["urls"])
    try:
        wrong = await wrong_verdicts(service, verdicts)
    except (ScorerError, ConfigError) as error:
        remedy = f"{error.fix} Or start one with `python -m examples.rule_judge`, or set JUDGE_URL= to yours."
        return Check("fail", f"{urls}: {error.problem}", remedy, name)
    if wrong:
        remedy = "Use a stronger judge: its mistakes are the reward."
        return Check("fail", f"wrong on {', '.join(wrong)}", remedy, name)
    number = len(FIXED_VERDICTS)
    return Check("pass", f"{number} of {number} fixed verdicts right at {urls}", name=name)


async def _embedder_check(service: ScorerService, embedder: dict[str, Any]) -> Check:
    name = f"embedder {embedder.get('model', '')}"
    try:
        same = (await service.similarity("pneumonia", "pneumonia ")).cosine
        other = (await service.similarity("pneumonia", "tax return")).cosine
    except (ScorerError, ConfigError) as error:
        return Check("fail", error.problem, error.fix, name)
    found = f"cosine {same:.2f} to itself, {other:.2f} to an unrelated text"
    if same < 0.99 or other > same - 0.2:
        return Check("fail", found, "Use another embedder: this one does not tell texts apart.", name)
    return Check("pass", found, name=name)


def check_colocated_judge(config: Any, config_only: bool = False) -> str | Check:
    """Check settings and folder of `reward.reward_model`; at best a warning, as no verdict has been seen."""
    model = config.reward.reward_model
    if config.reward.custom_reward_function.path is None:
        raise ConfigError(
            "Without reward.custom_reward_function.path veRL never calls the reward manager of a judge that it serves.",
            "Choose judge=colocated instead of setting the keys one by one.",
        )
    if not model.enable_resource_pool:
        raise ConfigError(
            "The judge has no GPU slots of its own (reward.reward_model.enable_resource_pool).",
            "Set reward.reward_model.enable_resource_pool=true.",
        )
    read_judge_check(config)
    if config_only:
        return f"colocated, {model.model_path}, on {model.n_gpus_per_node} GPU slot(s) of its own"
    found = _check_judge_folder(str(model.model_path or ""))
    asked = "it starts with the run, and is asked the fixed verdicts before it pays the first response"
    return Check("warn", f"{found}; {asked}", "Watch the first step.")


def read_judge_check(config: Any) -> JudgeCheck:
    """Return what a judge that gets fixed verdicts wrong does to the run: `medix.judge_check`.

    Raises:
        ConfigError: neither `stop` nor `warn`.
    """
    found = config.medix.get("judge_check", "stop")
    if found not in get_args(JudgeCheck):
        raise ConfigError(f"medix.judge_check is {found!r}.", "Set it to stop or warn.")
    chosen: JudgeCheck = found
    return chosen


def _check_judge_folder(path: str) -> str:
    folder = Path(path)
    if hub_name(path):
        return f"colocated, {path} taken as a hub name"
    if not path or not folder.is_dir():
        raise ConfigError(
            f"There is no folder with the judge's language model at {path!r}.",
            "Set JUDGE_MODEL= (reward.reward_model.model_path); examples/colocated_judge makes a small one.",
        )
    missing = missing_files(folder, "config.json", "tokenizer_config.json")
    settings = {} if "tokenizer_config.json" in missing else read_mapping(folder / "tokenizer_config.json")
    if not (folder / "chat_template.jinja").is_file() and not settings.get("chat_template"):
        missing.append("chat template")
    if missing:
        raise ConfigError(f"The judge in {path} has no {', '.join(missing)}.", "Build or download it again.")
    check_readable(folder)
    if "auto_map" in settings:
        # veRL 0.9.1 opens the judge's tokenizer with trust_remote_code=True, whatever is configured.
        raise ConfigError(
            f"veRL would run code that the judge's tokenizer brings (auto_map in {path}/tokenizer_config.json).",
            "Use another model, or serve this one yourself and set JUDGE=external JUDGE_URL=.",
        )
    return f"colocated, {path} holds weights, tokenizer and chat template"
