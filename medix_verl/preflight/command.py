"""`medix preflight`: every check of a run, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from medix_verl.preflight.check import Check, failed, run_check, table

if TYPE_CHECKING:
    from medix_verl.preflight.hardware import Gpu

NamedCheck = tuple[str, Callable[[], str | Check]]


def preflight(
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, as given to the recipe")] = None,
    config_name: Annotated[str, typer.Option(help="a file of recipes/medix/config, without .yaml")] = "medix_cpu",
    gpu_memory_gb: Annotated[
        float | None, typer.Option(help="reckon with cards of this size, on a machine without them")
    ] = None,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="leave out what needs model files, data files or running scorers")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Check environment, model, data, reward, judge and embedder before anything starts."""
    checks = run_preflight(config_name, overrides or [], gpu_memory_gb, config_only)
    if as_json:
        print(json.dumps({"checks": [check.as_dict() for check in checks], "ok": not failed(checks)}))
    else:
        Console().print(table(checks))
    if failed(checks):
        for check in failed(checks):
            typer.echo(f"error: {check.name}: {check.found}. Fix: {check.remedy}", err=True)
        raise typer.Exit(2)


def run_preflight(
    config_name: str, overrides: list[str], gpu_memory_gb: float | None = None, config_only: bool = False
) -> list[Check]:
    """All checks of one configuration, in the order in which a user would want to mend them.

    Args:
        gpu_memory_gb: of each card, on a machine that has none.
        config_only: before anything is downloaded; no model, no data and no scorer is looked at.
    """
    from omegaconf import OmegaConf

    from medix_verl.preflight.hardware import list_gpus
    from medix_verl.run_config import compose_config

    config = compose_config(config_name, overrides)
    gpus = list_gpus() if OmegaConf.select(config, "trainer.device") == "cuda" else []
    named = [
        *_machine_checks(config, gpus),
        *([] if config_only else _file_checks(config)),
        *_settings_checks(config),
        *_memory_checks(config, gpus, gpu_memory_gb),
        *_colocated_checks(config, config_only),
    ]
    checks = [run_check(name, check) for name, check in named]
    # A composite that can not be built is said by the check "reward", and needs no scorer.
    if config_only or any(check.name == "reward" for check in failed(checks)):
        return checks
    return [*checks, *_scorer_checks(config)]


def _machine_checks(config: Any, gpus: list[Gpu]) -> list[NamedCheck]:
    import psutil

    from medix_verl.preflight import environment, hardware, memory

    def check_platform() -> str | Check:
        if config.trainer.device == "cuda" and not gpus:
            return Check("platform", "warn", "not asked: no GPU here", "mend the check of the GPUs first")
        return environment.check_platform(config.trainer.device)

    return [
        ("versions", environment.check_versions),
        ("GPUs", lambda: hardware.check_gpus(config, gpus)),
        ("CPUs", lambda: hardware.check_cpus(config)),
        ("platform", check_platform),
        ("main memory", lambda: memory.check_host_memory(config, psutil.virtual_memory().total / 1e9)),
    ]


def _file_checks(config: Any) -> list[NamedCheck]:
    from omegaconf import OmegaConf

    from medix_verl.preflight import data, environment

    def check_file(path: str) -> Callable[[], str | Check]:
        return lambda: data.check_parquet(path, config.data.max_prompt_length)

    train, val = (_as_list(OmegaConf.select(config, f"data.{name}_files")) for name in ("train", "val"))
    return [
        ("model", lambda: environment.check_model_folder(config.actor_rollout_ref.model.path)),
        *((f"data {number}", check_file(path)) for number, path in enumerate([*train, *val], 1)),
        ("train rows", lambda: data.check_train_rows(config, train)),
    ]


def _settings_checks(config: Any) -> list[NamedCheck]:
    from medix_verl.preflight import batch_sizes, checkpoints, training, wiring
    from medix_verl.training.loggers import logger_names

    return [
        ("reward", lambda: training.check_reward(config)),
        ("reward manager", lambda: wiring.check_reward_manager(config)),
        ("plugins", lambda: wiring.check_plugins(config)),
        ("trackers", lambda: ", ".join(logger_names(config))),
        ("load format", lambda: training.check_load_format(config)),
        ("adapters", lambda: training.check_adapters(config)),
        ("batch sizes", lambda: batch_sizes.check_batch_sizes(config)),
        ("rollout engines", lambda: training.check_replicas(config)),
        ("lengths", lambda: training.check_lengths(config)),
        ("guards", lambda: training.check_guards(config)),
        ("checkpoints", lambda: checkpoints.check_best(config)),
        ("disk", lambda: checkpoints.check_disk(config)),
    ]


def _memory_checks(config: Any, gpus: list[Gpu], gpu_memory_gb: float | None) -> list[NamedCheck]:
    from omegaconf import OmegaConf

    from medix_verl.preflight import memory

    if OmegaConf.select(config, "trainer.device") == "cpu":
        return []
    card = memory.card_gb(gpus, gpu_memory_gb)
    checks: list[NamedCheck] = [("GPU memory", lambda: memory.check_memory(config, card))]
    if _is_colocated(config):
        checks.append(("judge memory", lambda: memory.check_judge_memory(config, card)))
    return checks


def _colocated_checks(config: Any, config_only: bool) -> list[NamedCheck]:
    from medix_verl.preflight import colocated

    if not _is_colocated(config):
        return []
    check = colocated.check_judge_settings if config_only else colocated.check_colocated_judge
    return [("judge", lambda: check(config))]


def _scorer_checks(config: Any) -> list[Check]:
    from omegaconf import OmegaConf

    from medix_verl.preflight.scorers import check_scorers
    from reward_fns import AssumedScorers, build_composite

    found: list[Check] = []

    def ask() -> str:
        needs = build_composite(OmegaConf.to_container(config.medix.reward, resolve=True), AssumedScorers()).needs
        colocated = {"judge"} if _is_colocated(config) else set()
        found.extend(check_scorers(OmegaConf.to_container(config.medix.scorer, resolve=True), needs - colocated))
        return ""

    asked = run_check("scorers", ask)
    return [*found, *failed([asked])]


def _is_colocated(config: Any) -> bool:
    from omegaconf import OmegaConf

    return bool(OmegaConf.select(config, "reward.reward_model.enable"))


def _as_list(value: Any) -> list[str]:
    """Files are given as one name or several; of anything else the checks say that it is no file."""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return [str(item) for item in value] if many else [] if value is None else [str(value)]
