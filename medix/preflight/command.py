"""`medix preflight`: every check of a run, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from medix.preflight.check import Check, failed, run_check, table


def preflight(
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, as given to the recipe")] = None,
    config_name: Annotated[str, typer.Option(help="a file of recipes/medix/config, without .yaml")] = "medix_cpu",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Check environment, model, data, reward, judge and embedder before anything starts."""
    checks = run_preflight(config_name, overrides or [])
    if as_json:
        print(json.dumps({"checks": [check.as_dict() for check in checks], "ok": not failed(checks)}))
    else:
        Console().print(table(checks))
    if failed(checks):
        for check in failed(checks):
            typer.echo(f"error: {check.name}: {check.found}. Fix: {check.remedy}", err=True)
        raise typer.Exit(2)


def run_preflight(config_name: str, overrides: list[str]) -> list[Check]:
    """All checks of one configuration, in the order in which a user would want to mend them."""
    from medix.run_config import compose_config

    config = compose_config(config_name, overrides)
    checks = [run_check(name, check) for name, check in _local_checks(config)]
    return [*checks, *_scorer_checks(config)]


def _local_checks(config: Any) -> list[tuple[str, Callable[[], str | Check]]]:
    from medix.preflight import environment, training

    longest = config.data.max_prompt_length
    files = [*_as_list(config.data.train_files), *_as_list(config.data.val_files)]
    return [
        ("versions", environment.check_versions),
        ("platform", lambda: environment.check_platform(config.trainer.device)),
        ("model", lambda: environment.check_model_folder(config.actor_rollout_ref.model.path)),
        *((f"data {number}", _data_check(path, longest)) for number, path in enumerate(files, 1)),
        ("reward", lambda: training.check_reward(config)),
        ("reward manager", lambda: training.check_reward_manager(config)),
        ("load format", lambda: training.check_load_format(config)),
        ("batch sizes", lambda: training.check_batch_sizes(config)),
        ("lengths", lambda: training.check_lengths(config)),
        ("disk", lambda: environment.check_disk(config)),
    ]


def _data_check(path: str, max_prompt_length: int) -> Callable[[], str]:
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
