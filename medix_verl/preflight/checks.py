"""All checks of a run as one list, in the order in which a user would want to mend them; the slowest ends last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.preflight import config as settings
from medix_verl.preflight import data, disk, machine, memory, model, scorers
from medix_verl.preflight.check import Check, failed, run_check
from medix_verl.recipe.figures import run_figures
from reward_fns import AssumedScorers, build_composite

CheckFunction = Callable[[], str | Check]


def run_checks(config: Any, gpu_memory_gb: float | None = None, config_only: bool = False) -> Iterator[Check]:
    """Run every check, yielding each as soon as it is done; the imports are tried beside the others and come last.

    Args:
        config: an OmegaConf `DictConfig`, as `compose_config` returns it.
        gpu_memory_gb: of each card, on a machine that has none.
        config_only: leave out model files, data files and scorers: nothing has been downloaded yet.
    """
    on_gpus = OmegaConf.select(config, "trainer.device") == "cuda"
    serves_judge = bool(OmegaConf.select(config, "reward.reward_model.enable"))
    silent: list[ConfigError] = []

    @cache  # nvidia-smi may take a minute, or hang: it is asked once, and the check of the GPUs says so
    def gpus() -> list[machine.Gpu]:
        try:
            return machine.list_gpus() if on_gpus else []
        except ConfigError as error:
            silent.append(error)
            return []

    def check_gpus() -> str | Check:
        found = gpus()
        if silent:
            raise silent[0]
        return machine.check_gpus(config, found)

    def with_gpus(check: CheckFunction) -> str | Check:
        if on_gpus and not gpus():
            return Check("warn", "not tried: no GPU here", "Mend the check of the GPUs first.")
        return check()

    checks = [_machine(config, check_gpus), _files(config, config_only), _settings(config)]
    if on_gpus:

        def card() -> float | None:
            return gpu_memory_gb or min((gpu.memory_gb for gpu in gpus()), default=None)

        checks.append({"GPU memory": lambda: memory.check_memory(config, card())})
        if serves_judge:
            checks.append({"judge memory": lambda: memory.check_judge_memory(config, card())})
    if serves_judge:
        checks.append({"judge": lambda: scorers.check_colocated_judge(config, config_only)})
    broken = False
    gpus()
    with ThreadPoolExecutor(1) as beside:
        # A child imports what the run will, which takes as long as all other checks together.
        imports = beside.submit(run_check, "imports", lambda: with_gpus(lambda: machine.check_imports(config)))
        for name, check in [named for group in checks for named in group.items()]:
            done = run_check(name, check)
            # A composite that can not be built is said by the check "reward", and needs no scorer.
            broken |= name == "reward" and done.status == "fail"
            yield done
        if not config_only and not broken:
            yield from _scorers(config, serves_judge)
        yield imports.result()
    yield run_check("platform", lambda: with_gpus(lambda: machine.check_driver(config, gpus())))
    if on_gpus:
        estimate = run_check("estimate", lambda: _estimate(config, gpus()))
        # It refuses nothing: a setting that it can not reckon with is refused by a check of its own.
        yield replace(estimate, status="warn") if failed([estimate]) else estimate


def _estimate(config: Any, gpus: list[machine.Gpu]) -> str | Check:
    figures = run_figures(config, gpus[0].name if gpus else "H100")
    return figures.describe() if figures else Check("warn", "size of the model not known here", memory.UNKNOWN)


def _machine(config: Any, check_gpus: CheckFunction) -> dict[str, CheckFunction]:
    return {
        "versions": machine.check_versions,
        "GPUs": check_gpus,
        "CPUs": partial(machine.check_cpus, config),
        "limits": partial(machine.check_limits, config),
        "main memory": lambda: memory.check_host_memory(config, machine.memory_limit_gb()),
    }


def _files(config: Any, config_only: bool) -> dict[str, CheckFunction]:
    if config_only:
        return {"models": partial(disk.check_hub_models, config)}
    train, val = (_as_list(OmegaConf.select(config, f"data.{name}_files")) for name in ("train", "val"))
    longest = OmegaConf.select(config, "data.max_prompt_length")
    return {
        "model": lambda: model.check_model_folder(config.actor_rollout_ref.model.path),
        **{f"data {i}": partial(data.check_parquet, path, longest) for i, path in enumerate([*train, *val], 1)},
        "train rows": partial(data.check_train_rows, config, train),
    }


def _settings(config: Any) -> dict[str, CheckFunction]:
    checks: dict[str, Callable[[Any], str | Check]] = {
        "reward": settings.check_reward,
        "reward manager": settings.check_reward_manager,
        "plugins": settings.check_plugins,
        "trackers": machine.check_trackers,
        "load format": settings.check_load_format,
        "adapters": settings.check_adapters,
        "gradients": settings.check_gradient_sync,
        "batch sizes": settings.check_batch_sizes,
        "rollout engines": settings.check_replicas,
        "lengths": settings.check_lengths,
        "guards": settings.check_guards,
        "checkpoints": disk.check_best,
        "disk": disk.check_disk,
    }
    return {name: partial(check, config) for name, check in checks.items()}


def _scorers(config: Any, serves_judge: bool) -> list[Check]:
    found: list[Check] = []

    def ask() -> str:
        medix = OmegaConf.to_container(config.medix, resolve=True)
        composite = build_composite(medix["reward"], AssumedScorers())
        needs = composite.needs - ({"judge"} if serves_judge else set())
        found.extend(scorers.check_scorers(medix["scorer"], needs, composite.verdicts))
        return ""

    asked = run_check("scorers", ask)
    return [*found, *failed([asked])]


def _as_list(value: Any) -> list[str]:
    """Return the files of a setting that holds one name or several; the checks say of other values what is wrong."""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return [str(item) for item in value] if many else [] if value is None else [str(value)]
