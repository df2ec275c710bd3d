"""All checks of a run as one list, in the order in which a user would want to mend them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from omegaconf import OmegaConf

from medix_verl.preflight import config as settings
from medix_verl.preflight import data, disk, hub, machine, memory, model, scorers
from medix_verl.preflight.check import Check, failed, run_check

NamedCheck = tuple[str, Callable[[], str | Check]]


@dataclass(frozen=True)
class Request:
    """What is checked: a composed configuration, on this machine or on cards of a given size.

    Args:
        config: an OmegaConf `DictConfig`, as `compose_config` returns it.
        gpu_memory_gb: of each card, on a machine that has none.
        config_only: leave out model files, data files and scorers: nothing has been downloaded yet.
    """

    config: Any
    gpu_memory_gb: float | None = None
    config_only: bool = False

    @property
    def device(self) -> str:
        return str(OmegaConf.select(self.config, "trainer.device"))

    @property
    def serves_judge(self) -> bool:
        return bool(OmegaConf.select(self.config, "reward.reward_model.enable"))


def run_checks(request: Request) -> Iterator[Check]:
    """Run every check, yielding each as soon as it is done."""
    # Asked once, by the first check that needs it: nvidia-smi may take a minute, or fail with a message of its own.
    gpus = cache(lambda: machine.list_gpus() if request.device == "cuda" else [])
    broken = False
    for name, check in [*_machine(request, gpus), *_files(request), *_settings(request), *_sizes(request, gpus)]:
        done = run_check(name, check)
        # A composite that can not be built is said by the check "reward", and needs no scorer.
        broken |= name == "reward" and done.status == "fail"
        yield done
    if not request.config_only and not broken:
        yield from _scorers(request)


def _machine(request: Request, gpus: Callable[[], list[machine.Gpu]]) -> list[NamedCheck]:
    config = request.config

    def check_driver() -> str | Check:
        if request.device == "cuda" and not gpus():
            return Check("warn", "not asked: no GPU here", "Mend the check of the GPUs first.")
        return machine.check_driver(config, gpus())

    def check_imports() -> str | Check:
        if request.device == "cuda" and not gpus():
            return Check("warn", "not tried: no GPU here", "Mend the check of the GPUs first.")
        return machine.check_imports(config)

    return [
        ("versions", machine.check_versions),
        ("GPUs", lambda: machine.check_gpus(config, gpus())),
        ("imports", check_imports),
        ("platform", check_driver),
        ("CPUs", partial(machine.check_cpus, config)),
        ("limits", partial(machine.check_limits, config)),
        ("main memory", lambda: memory.check_host_memory(config, machine.memory_limit_gb())),
    ]


def _files(request: Request) -> list[NamedCheck]:
    config = request.config
    if request.config_only:
        return [("models", partial(hub.check_hub_models, config))]
    train, val = (_as_list(OmegaConf.select(config, f"data.{name}_files")) for name in ("train", "val"))
    longest = OmegaConf.select(config, "data.max_prompt_length")
    return [
        ("model", lambda: model.check_model_folder(config.actor_rollout_ref.model.path)),
        *(
            (f"data {number}", partial(data.check_parquet, path, longest))
            for number, path in enumerate([*train, *val], 1)
        ),
        ("train rows", partial(data.check_train_rows, config, train)),
    ]


def _settings(request: Request) -> list[NamedCheck]:
    checks = {
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
    return [(name, partial(check, request.config)) for name, check in checks.items()]


def _sizes(request: Request, gpus: Callable[[], list[machine.Gpu]]) -> list[NamedCheck]:
    config = request.config
    checks: list[NamedCheck] = []
    if request.device == "cuda":

        def card() -> float | None:
            return memory.card_gb([] if request.gpu_memory_gb else gpus(), request.gpu_memory_gb)

        checks.append(("GPU memory", lambda: memory.check_memory(config, card())))
        if request.serves_judge:
            checks.append(("judge memory", lambda: memory.check_judge_memory(config, card())))
    if request.serves_judge:
        checks.append(("judge", lambda: scorers.check_colocated_judge(config, request.config_only)))
    return checks


def _scorers(request: Request) -> list[Check]:
    from reward_fns import AssumedScorers, build_composite

    found: list[Check] = []

    def ask() -> str:
        medix = OmegaConf.to_container(request.config.medix, resolve=True)
        needs = build_composite(medix["reward"], AssumedScorers()).needs
        found.extend(scorers.check_scorers(medix["scorer"], needs - ({"judge"} if request.serves_judge else set())))
        return ""

    asked = run_check("scorers", ask)
    return [*found, *failed([asked])]


def _as_list(value: Any) -> list[str]:
    """Return the files of a setting that holds one name or several; the checks say of other values what is wrong."""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return [str(item) for item in value] if many else [] if value is None else [str(value)]
