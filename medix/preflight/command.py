"""`medix preflight`: every check of a run, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from medix.preflight.check import Check, failed, run_check, table

if TYPE_CHECKING:
    from medix.preflight.hardware import Gpu

NamedCheck = tuple[str, Callable[[], str | Check]]


def preflight(
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, as given to the recipe")] = None,
    config_name: Annotated[str, typer.Option(help="a file of recipes/medix/config, without .yaml")] = "medix_cpu",
    gpu_memory_gb: Annotated[
        float | None, typer.Option(help="reckon with cards of this size, on a machine without them")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Check environment, model, data, reward, judge and embedder before anything starts."""
    checks = run_preflight(config_name, overrides or [], gpu_memory_gb)
    if as_json:
        print(json.dumps({"checks": [check.as_dict() for check in checks], "ok": not failed(checks)}))
    else:
        Console().print(table(checks))
    if failed(checks):
        for check in failed(checks):
            typer.echo(f"error: {check.name}: {check.found}. Fix: {check.remedy}", err=True)
        raise typer.Exit(2)


def run_preflight(config_name: str, overrides: list[str], gpu_memory_gb: float | None = None) -> list[Check]:
    """All checks of one configuration, in the order in which a user would want to mend them."""
    from medix.preflight.hardware import list_gpus
    from medix.run_config import compose_config

    config = compose_config(config_name, overrides)
    gpus = list_gpus() if config.trainer.device == "cuda" else []
    checks = [run_check(name, check) for name, check in [*_machine_checks(config, gpus), *_run_checks(config)]]
    if config.trainer.device != "cpu":
        from medix.preflight.memory import card_gb

        checks += [run_check(name, check) for name, check in _memory_checks(config, card_gb(gpus, gpu_memory_gb))]
    return [*checks, *_scorer_checks(config)]


def _machine_checks(config: Any, gpus: list[Gpu]) -> list[NamedCheck]:
    import psutil

    from medix.preflight import environment, hardware, memory

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


def _run_checks(config: Any) -> list[NamedCheck]:
    from medix.preflight import checkpoints, environment, training

    longest = config.data.max_prompt_length
    files = [*_as_list(config.data.train_files), *_as_list(config.data.val_files)]
    return [
        ("model", lambda: environment.check_model_folder(config.actor_rollout_ref.model.path)),
        *((f"data {number}", _data_check(path, longest)) for number, path in enumerate(files, 1)),
        ("reward", lambda: training.check_reward(config)),
        ("reward manager", lambda: training.check_reward_manager(config)),
        ("load format", lambda: training.check_load_format(config)),
        ("adapters", lambda: training.check_adapters(config)),
        ("batch sizes", lambda: training.check_batch_sizes(config)),
        ("rollout engines", lambda: training.check_replicas(config)),
        ("lengths", lambda: training.check_lengths(config)),
        ("guards", lambda: training.check_guards(config)),
        ("checkpoints", lambda: checkpoints.check_best(config)),
        ("disk", lambda: checkpoints.check_disk(config)),
    ]


def _memory_checks(config: Any, card: float | None) -> list[NamedCheck]:
    from medix.preflight import hardware, memory

    checks: list[NamedCheck] = [("GPU memory", lambda: memory.check_memory(config, card))]
    if hardware.judge_gpus(config):
        checks.append(("judge memory", lambda: memory.check_judge_memory(config, card)))
    return checks


def _data_check(path: str, max_prompt_length: int) -> Callable[[], str | Check]:
    from medix.preflight.data import check_parquet

    return lambda: check_parquet(path, max_prompt_length)


def _scorer_checks(config: Any) -> list[Check]:
    from omegaconf import OmegaConf

    from medix.errors import ConfigError
    from medix.preflight.colocated import check_colocated_judge
    from medix.preflight.scorers import check_scorers
    from reward_fns import AssumedScorers, build_composite

    try:
        composite = build_composite(OmegaConf.to_container(config.medix.reward, resolve=True), AssumedScorers())
    except ConfigError:
        return []  # said by the check "reward"
    colocated, needs = [], composite.needs
    if config.reward.reward_model.enable:
        colocated = [run_check("judge", lambda: check_colocated_judge(config))]
        needs -= {"judge"}
    try:
        return [*colocated, *check_scorers(OmegaConf.to_container(config.medix.scorer, resolve=True), needs)]
    except ConfigError as error:
        return [*colocated, Check("scorers", "fail", f"expected {error.expected}; found {error.found}", error.fix)]


def _as_list(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str) else [str(item) for item in value]
